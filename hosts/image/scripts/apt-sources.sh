#!/bin/bash
# Prints sources of a Debian suite, made from this machine's own apt configuration: a machine that installs from a
# mirror builds from the same mirror. Reads the deb822 and the one-line format. Third-party sources are left out: an
# archive is Debian's when it is trusted by Debian's archive keyring, or names no key and its path ends in debian or
# debian-security.
#
#   apt-sources.sh SUITE [APT-FOLDER]      SUITE e.g. trixie; APT-FOLDER defaults to /etc/apt
set -euo pipefail
shopt -s nullglob

suite=${1:?usage: apt-sources.sh SUITE [APT-FOLDER]}
folder=${2:-/etc/apt}
one_line=("$folder"/sources.list "$folder"/sources.list.d/*.list)
deb822=("$folder"/sources.list.d/*.sources)

# Each source as "URI<tab>suite<tab>key", key "-" when none is named.
entries() {
    for file in "${one_line[@]}"; do
        [[ -f $file ]] || continue
        awk '$1 == "deb" {
            sub(/#.*/, ""); options = ""
            if (match($0, /\[[^]]*\]/)) { options = substr($0, RSTART + 1, RLENGTH - 2); sub(/\[[^]]*\]/, "") }
            key = "-"
            n = split(options, option, /[[:space:]]+/)
            for (i = 1; i <= n; i++) if (tolower(option[i]) ~ /^signed-by=/) { key = option[i]; sub(/^[^=]*=/, "", key) }
            if ($0 ~ /[[:space:]]main([[:space:]]|$)/) print $2 "\t" $3 "\t" key
        }' "$file"
    done
    for file in "${deb822[@]}"; do
        awk '
            function flush(  u, s, i, j, n, m) {
                if (value["types"] ~ /(^| )deb( |$)/ && tolower(value["enabled"]) !~ /no/ && value["components"] ~ /(^| )main( |$)/) {
                    n = split(value["uris"], u, " "); m = split(value["suites"], s, " ")
                    sub(/^ +/, "", value["signed-by"]); gsub(/[ \t]/, "_", value["signed-by"])
                    for (i = 1; i <= n; i++) for (j = 1; j <= m; j++)
                        print u[i] "\t" s[j] "\t" (value["signed-by"] == "" ? "-" : value["signed-by"])
                }
                delete value; field = ""
            }
            /^#/ { next }
            /^[[:space:]]*$/ { flush(); next }
            /^[^[:space:]]/ { field = tolower($0); sub(/:.*/, "", field); sub(/^[^:]*:/, "") }
            { gsub(/^[[:space:]]+|[[:space:]]+$/, ""); value[field] = value[field] " " $0 }
            END { flush() }' "$file"
    done
}

# Debian's releases that a machine of today may run.
release='(bullseye|bookworm|trixie|forky|oldoldstable|oldstable|stable|testing)'
found=$(entries | awk -F'\t' -v suite="$suite" -v release="^$release" '
    $3 !~ /debian-archive/ && !($3 == "-" && $1 ~ /\/debian(-security)?\/?$/) { next }
    $2 ~ release "$" { print $1 "\t" suite }
    $2 ~ release "-updates$" { print $1 "\t" suite "-updates" }
    $2 ~ release "-security$" { print $1 "\t" suite "-security" }' | sort -u)
if ! grep -q "	$suite$" <<<"$found"; then
    echo "apt-sources.sh: $folder names no Debian archive (looked at: ${one_line[*]} ${deb822[*]}); add one to build images from" >&2
    exit 1
fi
while IFS=$'\t' read -r uri name; do
    printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n' "$uri" "$name"
done <<<"$found"
