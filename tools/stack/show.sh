#!/usr/bin/env bash
# Says where the stack's group answers (after asking it), what the host's kernel reports of its integrity, and what to
# do next. Fails when the group does not answer.
source "$(dirname "$0")/../lib.sh"
source tools/stack/stack-environment.sh

pulumi_environment
prefix=""
[[ $STACK == local ]] || prefix="STACK=$STACK "
pulumi stack output --json --stack "$STACK" --non-interactive | node tools/stack/show.mjs "$prefix"
