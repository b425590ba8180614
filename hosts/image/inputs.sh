#!/bin/bash
# Prints the files that the image is made of, relative to this folder, one per line, sorted. The prebuilt programs and
# the keys come on top.
set -euo pipefail

cd "$(dirname "$(realpath "$0")")"
find . -type f ! -name '*.md' ! -name '*_test.*' ! -name '.*' -printf '%P\n' | LC_ALL=C sort
