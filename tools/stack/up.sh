#!/usr/bin/env bash
# `pulumi up` of the stack. What it needs of the operator (keys, passphrase, backend) is made when it is not there.
source "$(dirname "$0")/../lib.sh"
source tools/stack/stack-environment.sh

make_home
bin/palisade keys init
# What images are scanned with. `palisade vulndb build nginx` makes it anew, and the next `up` patches what it knows by then.
step "vulnerability database" bin/palisade vulndb build --if-absent nginx
clear_stale_locks
create_stack
write_stack_config

# On a terminal Pulumi shows a live tree; elsewhere lines, and nothing to read answers from.
terminal=(--non-interactive)
if [[ -t 0 && -t 1 ]]; then terminal=(); else exec </dev/null; fi

# exec: signals reach Pulumi itself, which then ends what it does in order.
exec pulumi up --stack "$STACK" --config-file "$stack_config" --yes --skip-preview --suppress-outputs "${terminal[@]}"
