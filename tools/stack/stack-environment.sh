# shellcheck shell=bash
# shellcheck disable=SC2154  # root comes from lib.sh
# The stack that `make up` means, and the environment in which Pulumi runs. Sourced after lib.sh.

export STACK="${STACK:-local}"
[[ $STACK =~ ^[A-Za-z0-9_.-]{1,100}$ ]] || fail \
  "STACK: '$STACK' is no stack name; letters, digits, '-', '_' and '.' are allowed, at most 100."

# The variables of `palisade env`: a file backend and a passphrase of the operator's own, no account, no question, no
# plugin download, no update check. Called before any Pulumi command; the build has to be there.
pulumi_environment() {
  local variables path=$PATH
  variables=$(PULUMI_STACK=$STACK bin/palisade env)
  eval "$variables"
  # Each command of the scripts names stack and configuration, and finds only the plugins that Pulumi.yaml names.
  unset PULUMI_STACK PULUMI_OPTION_CONFIG_FILE
  PATH=$path
}

project=$(sed -n 's/^name: *//p' Pulumi.yaml)
stack_config="$PALISADE_HOME/stacks/$project.$STACK.yaml"

# Keys, passphrase and folders, made once and never replaced.
make_home() {
  local temporary
  # Only the operator may read these files.
  (umask 077 && mkdir -p "$PALISADE_HOME"/{backend,pulumi,stacks})
  chmod 700 "$PALISADE_HOME"
  if [[ ! -s $PALISADE_HOME/passphrase ]]; then
    if compgen -G "$PALISADE_HOME/backend/.pulumi/stacks/*/*.json" >/dev/null; then
      fail "$PALISADE_HOME/passphrase is missing, but there are stacks whose secrets it protects." \
        "Restore the file from a backup; without it their state cannot be read."
    fi
    temporary=$(umask 077 && mktemp "$PALISADE_HOME/.passphrase-XXXXXX")
    head -c 32 /dev/urandom | base64 >"$temporary"
    # The link fails when another run was faster; then the passphrase of that run counts.
    ln "$temporary" "$PALISADE_HOME/passphrase" 2>/dev/null || true
    rm -f "$temporary"
  fi
  chmod 600 "$PALISADE_HOME/passphrase"
}

# The stack's configuration is the committed Pulumi.<stack>.yaml (Pulumi.local.yaml for stacks of other names) with the
# salt of the operator's own passphrase, which belongs outside the clone. A file with a salt of its own, that is one
# with secrets in it, is used as it is.
write_stack_config() {
  local template=Pulumi.$STACK.yaml salt=""
  [[ -f $template ]] || template=Pulumi.local.yaml
  if grep -qE '^(encryptionsalt|secretsprovider|encryptedkey):' "$template"; then
    stack_config="$root/$template"
    return
  fi
  [[ -f $stack_config ]] && salt=$(grep '^encryptionsalt:' "$stack_config" || true)
  (
    umask 077
    { cat "$template" && printf '%s\n' "$salt"; } >"$stack_config.$$"
    mv "$stack_config.$$" "$stack_config"
  )
}

stack_exists() {
  [[ -f $PALISADE_HOME/backend/.pulumi/stacks/$project/$STACK.json ]]
}

# Created from a folder of its own: `stack init` writes a salt into the configuration beside Pulumi.yaml, which would
# change the clone.
create_stack() {
  stack_exists && return
  local folder
  folder=$(mktemp -d)
  printf 'name: %s\nruntime: nodejs\n' "$project" >"$folder/Pulumi.yaml"
  pulumi --cwd "$folder" stack init "$STACK" --no-select --non-interactive >/dev/null
  rm -rf "$folder"
}

# What a killed Pulumi left: its lock, and a state that was cut off. The build has to be there.
clear_stale_locks() {
  bin/palisade recover --stack "$STACK"
}
