# shellcheck shell=bash
# Sourced after lib.sh by the scripts of this folder, which scripts/package calls with the folder of
# the results, and with ISCSI_NBD_VERSION, ISCSI_NBD_FAST and SOURCE_DATE_EPOCH set.

out=${1:?call it by scripts/package}
version=${ISCSI_NBD_VERSION:-$(node -p "require('$project_dir/package.json').version")}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# finish FILE...: the checksum of each result beside it, and its name and size for the caller.
finish() {
  local file
  for file in "$@"; do
    (cd "$out" && sha256sum "$file" >"$file.sha256")
    printf '%s  %s bytes\n' "$out/$file" "$(stat -c %s "$out/$file")"
  done
}

# put_version FILE: writes the version of the packages into a package.json.
put_version() {
  sed -i "s/^  \"version\": \".*\"/  \"version\": \"$version\"/" "$1"
}
