#!/usr/bin/env bash
# The Debian packages of packages.txt that the machine lacks: says which, and why, and installs them when run as root;
# otherwise prints the command that does and stops. `check`: those of packages-check.txt, which only `make check` needs.
# `install`: what the printed command runs; it installs both.
source "$(dirname "$0")/../lib.sh"
case ${1:-} in
  check) lists=(tools/setup/packages-check.txt) ;;
  install) lists=(tools/setup/packages.txt tools/setup/packages-check.txt) ;;
  *) lists=(tools/setup/packages.txt) ;;
esac

# Commands in the system's own folders count even for users who do not have these on PATH.
has() {
  [[ $1 == /* ]] && { [[ -e $1 ]]; return; }
  PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin" command -v "$1" >/dev/null
}

missing=()
reasons=()
while IFS='|' read -r package probe reason; do
  read -r package <<<"$package"
  read -r probe <<<"$probe"
  [[ -z $package || $package == \#* ]] && continue
  has "$probe" && continue
  missing+=("$package")
  reasons+=("$package:$reason")
done < <(cat "${lists[@]}")

if ((${#missing[@]} == 0)); then
  [[ ${1:-} == install ]] && echo "palisade: nothing is missing"
  exit 0
fi

command -v apt-get >/dev/null || fail \
  "this machine lacks what these Debian packages hold: ${missing[*]}" \
  "There is no apt-get here; install them by this machine's own means, then run the command again."

echo "Root is needed for one step: these Debian packages are missing."
printf '  %s\n' "${reasons[@]}"
if ((EUID != 0)); then
  fail "run this once, then repeat the command:" "  sudo $root/tools/setup/packages.sh install"
fi

# The registry's package starts a service on port 5000. Palisade starts registries itself, so no service starts while
# these packages are installed; a machine's own policy stays as it is.
policy=/usr/sbin/policy-rc.d
if [[ ! -e $policy ]]; then
  trap 'rm -f "$policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
fi

install_packages() {
  export DEBIAN_FRONTEND=noninteractive
  # The lists may be empty or old on a fresh machine; when they cannot be read anew, the known ones are tried.
  apt-get update -q || echo "apt-get update failed; trying with the package lists there are"
  apt-get install -q -y --no-install-recommends "${missing[@]}"
  # A service that is not started now would start at the next boot.
  if printf '%s\n' "${missing[@]}" | grep -qx docker-registry && command -v systemctl >/dev/null; then
    systemctl disable docker-registry.service || true
  fi
  echo "${#missing[@]} installed" >&3
}
step "Debian packages" install_packages
