#!/bin/bash
# Prints what of this machine's apt configuration matters for downloads elsewhere: proxies, retries, dates,
# certificates.
set -euo pipefail

apt-config dump | grep -E '^Acquire::(Retries|ForceIPv4|ForceIPv6|Check-Valid-Until|Check-Date|https?::[^ ]+) ' || true
