#!/bin/bash
# Prints the file of the integrity policy that a mode has: its own, else the one of all modes.
#
#   policy-of-mode.sh DEFINITION MODE
set -euo pipefail

policy=$1/ipe-policy
[[ ! -f $policy.$2 ]] || policy=$policy.$2
echo "$policy"
