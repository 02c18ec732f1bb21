# shellcheck shell=bash
# Sourced after lib.sh by what installs iscsi-nbd or packs it.

# file_rows PACKAGE...: the rows of packaging/files.list of these packages, one a file: its mode,
# its place and its source.
file_rows() {
  local package mode place source file
  while read -r package mode place source; do
    [[ -n $package && " $* " == *" $package "* ]] || continue
    if [[ $place != */ ]]; then
      printf '%s %s %s\n' "$mode" "$place" "$source"
      continue
    fi
    for file in "$project_dir"/$source; do
      printf '%s %s %s\n' "$mode" "$place${file##*/}" "${file#"$project_dir/"}"
    done
  done < <(grep -v '^#' "$project_dir/packaging/files.list")
}

# put_files ROOT PACKAGE...: installs the files of these packages below ROOT.
put_files() {
  local root=$1 mode place source
  shift
  while read -r mode place source; do
    [[ $place == /etc/* && -e $root$place ]] && continue
    install -D -m "$mode" "$project_dir/$source" "$root$place"
  done < <(file_rows "$@")
}

# put_command ROOT NODE: the command, which runs the program with the Node at the path NODE.
put_command() {
  local command=$1/usr/bin/iscsi-nbd
  mkdir -p "${command%/*}"
  # make-capsule finds Node by this line.
  [[ $2 =~ ^[A-Za-z0-9_./+@:,-]+$ ]] || die "the path of Node.js is to be without spaces and quotes: $2"
  local main=/usr/lib/iscsi-nbd/dist/boot/main.mjs flags
  flags=$(sed -n '1s/^#!.* node //p' "$1$main")
  printf '#!/bin/sh\nexec %s %s %s "$@"\n' "$2" "$flags" "$main" >"$command"
  chmod 755 "$command"
}

# put_completions ROOT: for bash and zsh, as the program prints them.
put_completions() {
  local shell place
  for shell in bash zsh; do
    place=$1/usr/share/bash-completion/completions/iscsi-nbd
    [[ $shell == bash ]] || place=$1/usr/share/zsh/vendor-completions/_iscsi-nbd
    mkdir -p "${place%/*}"
    SHELL=/bin/$shell node "$project_dir/dist/boot/main.mjs" completion >"$place"
    chmod 644 "$place"
  done
}
