#!/usr/bin/env bash
# Any Pulumi command on the stack that `make up` means, e.g. `tools/stack/stack.sh preview --diff`.
source "$(dirname "$0")/../lib.sh"
source tools/stack/stack-environment.sh

(($# > 0)) || fail "usage: tools/stack/stack.sh COMMAND [ARGUMENT...], e.g. tools/stack/stack.sh preview --diff"
stack_exists || fail "the stack $STACK does not exist in $PALISADE_HOME/backend; make up creates it."
pulumi_environment
arguments=(--stack "$STACK")
case $1 in
up | update | preview | refresh | destroy | import | config)
  write_stack_config
  arguments+=(--config-file "$stack_config")
  ;;
esac
exec pulumi "$@" "${arguments[@]}"
