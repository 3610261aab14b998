#!/usr/bin/env bash
# Installs the system packages that the build and the tests need, on Debian or Ubuntu. Quick when all are there.
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$repo/scripts/lib.sh"
announce setup

# A C compiler for SQLite and ring; curl and python3 for the demo and the guests' tools; node and npm for the JavaScript
# engine's streams, the TypeScript template and componentize-js; strace makes the disk fail in a test.
packages=(build-essential pkg-config curl ca-certificates git python3 python3-venv nodejs npm strace)

if ! command -v cargo > /dev/null; then
  fail "cargo is missing" "install Rust with rustup: https://rustup.rs"
fi
if ! command -v apt-get > /dev/null; then
  say "this is not Debian or Ubuntu: make sure that these are installed: ${packages[*]}"
  exit 0
fi

# A command that is there, from wherever, needs no package.
missing=()
need() { command -v "$1" > /dev/null || missing+=("${@:2}"); }
need cc build-essential
need make build-essential
need curl curl
need git git
need python3 python3 python3-venv
need node nodejs
need npm npm
need strace strace
[ ${#missing[@]} = 0 ] && exit 0

apt_install "${missing[@]}"
