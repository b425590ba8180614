#!/usr/bin/env bash
# Removes what the stack made on this machine, and only that. Works after a failed `up`, and when there is nothing.
# Keys, passphrase and the cache of builds stay.
source "$(dirname "$0")/lib.sh"
source tools/stack-environment.sh

if ! stack_exists; then
  echo "palisade: the stack $STACK does not exist in $PALISADE_HOME/backend; nothing to remove"
else
  # The plugin removes things, so it has to be there.
  make --no-print-directory build
  make_home
  clear_stale_locks
  write_stack_config
  pulumi destroy --stack "$STACK" --config-file "$stack_config" --yes --skip-preview --non-interactive \
    --suppress-outputs </dev/null
  # The configuration stays, and with it what the clone says.
  pulumi stack rm "$STACK" --yes --preserve-config --non-interactive
fi
