# shellcheck shell=bash
# Sourced by the other scripts, which run under `set -euo pipefail`. Everything here is quiet and
# quick when there is nothing to do.

project_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
# Stamps and reports of this clone.
stamp_dir=$project_dir/.cache
# What every clone of this user shares: kernels for the VM.
shared_cache_dir=${ISCSI_NBD_CACHE:-${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/iscsi-nbd}
# What messages begin with: several scripts are called `run` or `vm`, so the folder is part of it.
script_name=$(realpath -m -- "$0")
script_name=${script_name#"$project_dir/"}

note() { printf '== %s\n' "$*" >&2; }

die() {
  printf '%s: %s\n' "$script_name" "$*" >&2
  exit 1
}

# Runs a command silently; when it fails, shows what it said and exits.
quietly() {
  local said
  said=$("$@" 2>&1 </dev/null) || {
    printf '%s\n' "$said" >&2
    die "failed: $*"
  }
}

# need_packages PACKAGE...: installs the Debian packages that are missing, or says how to.
need_packages() {
  local missing=() package
  for package in "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q ' installed$' ||
      missing+=("$package")
  done
  ((${#missing[@]})) || return 0
  command -v apt-get >/dev/null || die "these packages are missing (Debian names): ${missing[*]}"
  if ((EUID != 0)); then
    die "these packages are missing; run
  sudo apt-get update && sudo apt-get install -y --no-install-recommends ${missing[*]}"
  fi
  note "installing Debian packages: ${missing[*]}"
  # Package lists may be absent or name versions that the mirror has dropped since.
  install_packages "${missing[@]}" >/dev/null 2>&1 || {
    quietly apt-get update
    quietly install_packages "${missing[@]}"
  }
}

install_packages() {
  DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
    -o DPkg::Lock::Timeout=300 "$@" </dev/null
}

# The mirror that this machine's own packages come from, so that a proxy or a mirror set up here is
# used for the systems that are made, too. Without package lists, or on another distribution, none is
# known.
debian_mirror() {
  local mirror
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' |
    grep -v security | head -n 1) || true
  printf '%s\n' "${mirror:-http://deb.debian.org/debian/}"
}

# module_files ROOT RELEASE MODULE...: the files of modules of the kernel under ROOT, and of those they
# need, each once, in the order of loading. What this machine's own configuration says of modules
# (options, aliases, other commands) is about its own kernel and does not count.
module_files() {
  local root=$1 release=$2 module
  shift 2
  for module in "$@"; do
    modprobe -C /dev/null -d "$root" -S "$release" --show-depends "$module"
  done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }'
}

# hash_of PATH...: one hash of the names and contents of files and folders of the clone, the same
# wherever the clone lies: what is shared is found by it.
hash_of() (
  cd "$project_dir"
  find "${@#"$project_dir/"}" -type f -print0 2>/dev/null | LC_ALL=C sort -z |
    xargs -0r sha256sum | sha256sum | cut -c1-64
)

# once NAME HASH COMMAND...: runs the command unless it has succeeded for this hash before.
once() {
  local stamp=$stamp_dir/$1.stamp hash=$2
  shift 2
  [[ -f $stamp && $(<"$stamp") == "$hash" ]] && return 0
  "$@"
  mkdir -p "$stamp_dir"
  printf '%s\n' "$hash" >"$stamp"
}

need_node() {
  local wanted=20.19.0 found
  found=$(node -p process.versions.node 2>/dev/null) ||
    die "Node.js $wanted or newer is needed, and there is no 'node' in PATH (https://nodejs.org)"
  [[ $(printf '%s\n' "$wanted" "$found" | sort -V | head -n 1) == "$wanted" ]] ||
    die "Node.js $wanted or newer is needed; this is $found"
}

# Whether user-mode Linux runs here: it needs ptrace and room in /dev/shm, which some containers have
# not. What it says is in the file LOG.
user_mode_runs() { "$project_dir/scripts/vm/run" --kernel uml --timeout 60 -- true >"$1" 2>&1; }

# The packages of package-lock.json, in node_modules.
need_node_modules() {
  [[ -d $project_dir/node_modules ]] || rm -f "$stamp_dir/npm.stamp"
  # What `npm ci` or `npm install` was last run for by hand is as good as a stamp of ours.
  local installed=$project_dir/node_modules/.package-lock.json
  [[ -f $installed && ! -f $stamp_dir/npm.stamp &&
    ! $project_dir/package-lock.json -nt $installed ]] && return 0
  once npm "$(hash_of "$project_dir/package-lock.json")" install_node_modules
}

install_node_modules() {
  note 'npm ci'
  quietly npm --prefix "$project_dir" ci --no-audit --no-fund
}

# The native addon, build/Release/iscsi_nbd.node.
need_addon() {
  compgen -G "$project_dir/native/*.cc" >/dev/null || return 0
  local headers
  headers=$(node -p "require('path').resolve(process.execPath, '../../include/node')")
  need_packages g++
  # uv.h comes with Node's own headers; a distribution's Node may be without them.
  [[ -f $headers/uv.h || -f /usr/include/node/uv.h ]] || need_packages libuv1-dev
  [[ -f $project_dir/build/Release/iscsi_nbd.node ]] || rm -f "$stamp_dir/addon.stamp"
  once addon "$(hash_of "$project_dir/native" "$project_dir/scripts/addon") $(node -v)" build_addon
}

build_addon() {
  note 'building the native addon'
  quietly npm --prefix "$project_dir" run build:addon
}

# The compiled program, dist/.
need_dist() {
  [[ -d $project_dir/dist ]] || rm -f "$stamp_dir/dist.stamp"
  once dist "$(hash_of "$project_dir/src" "$project_dir"/tsconfig*.json)" build_dist
}

build_dist() {
  note 'compiling TypeScript'
  rm -rf "$project_dir/dist"
  quietly npm --prefix "$project_dir" run build:ts
}

test_packages=(
  # Real targets; istgt is not started without a configuration of the machine's own.
  tgt istgt
  libnbd-bin python3-libnbd fio qemu-utils qemu-block-extra libiscsi-bin e2fsprogs open-iscsi
  iproute2 iptables tmux zsh
  # Images that boot, and what boots them.
  qemu-system-x86 ovmf grub-pc-bin grub-efi-amd64-bin mtools busybox-static kmod cpio fdisk xz-utils
  # The npm package has an addon for arm64.
  g++-aarch64-linux-gnu
)
vm_packages=(
  qemu-system-x86 busybox-static kmod cpio zstd xz-utils util-linux fdisk udev slirp
  # Volumes of containers, with each of their file systems.
  podman crun xfsprogs btrfs-progs
)
rootfs_packages=(mmdebstrap eatmydata debian-archive-keyring e2fsprogs)
