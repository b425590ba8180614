#!/usr/bin/env bash
# Removes what the stack made on this machine, and only that. Works after a failed or killed `up`, and when there is
# nothing. Keys, passphrase and the cache of builds stay.
source "$(dirname "$0")/../lib.sh"
source tools/stack/stack-environment.sh

if ! stack_exists && ! compgen -G "$PALISADE_STATE/*/*/marker.json" >/dev/null; then
  echo "palisade: the stack $STACK does not exist in $PALISADE_HOME/backend; nothing to remove"
  exit 0
fi
# The plugin removes things, so it has to be built. PALISADE_BUILT=1 says that it is, from the current sources.
[[ -n ${PALISADE_BUILT:-} ]] || make --no-print-directory build

pulumi_environment
leftovers=(node tools/stack/leftovers.mjs "$PALISADE_STATE" "$PULUMI_BACKEND_URL" "$project" "$STACK")

if stack_exists; then
  make_home
  clear_stale_locks
  write_stack_config
  # Leftovers go first: a machine that the state does not know would keep its disk from being removed.
  pulumi stack export --stack "$STACK" --non-interactive | "${leftovers[@]}"
  pulumi destroy --stack "$STACK" --config-file "$stack_config" --yes --skip-preview --non-interactive \
    --suppress-outputs </dev/null
  pulumi stack rm "$STACK" --yes --preserve-config --non-interactive
else
  "${leftovers[@]}" </dev/null
fi
