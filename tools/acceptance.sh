#!/usr/bin/env bash
# Writes build/reports/<table>.json from what the last end-to-end tests observed on this content of the repository.
# Fails when a row does not hold. Usage: acceptance.sh TABLE...
source "$(dirname "$0")/lib.sh"

tools/build.sh
node dist/test/acceptance/tables.js "$@"
