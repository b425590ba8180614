#!/usr/bin/env bash
# `pulumi up` of the stack. Keys, passphrase and backend of the operator are made when they are missing.
source "$(dirname "$0")/../lib.sh"
source tools/stack/stack-environment.sh

pulumi_environment
make_home
bin/palisade keys init
# The vulnerability database. `palisade vulndb build nginx` renews it, and the next `up` patches what it knows by then.
step "vulnerability database" bin/palisade vulndb build --if-absent nginx
clear_stale_locks
create_stack
write_stack_config

# On a terminal Pulumi shows a live tree; elsewhere it prints lines and asks nothing.
terminal=(--non-interactive)
if [[ -t 0 && -t 1 ]]; then terminal=(); else exec </dev/null; fi

# With exec, signals reach Pulumi itself, which then ends in an orderly way.
exec pulumi up --stack "$STACK" --config-file "$stack_config" --yes --skip-preview --suppress-outputs "${terminal[@]}"
