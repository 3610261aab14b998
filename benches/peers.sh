#!/usr/bin/env bash
# Installs the peers that the benchmarks measure Marram beside, from the package registries, into one folder: the load
# generator wrk (a system package), wasmtime's command line, and workerd.
#
#   benches/peers.sh [FOLDER]        (default: $CARGO_TARGET_DIR/bench-peers)
#
# Quick when they are there. The first time it compiles wasmtime, which takes a quarter of an hour on two cores.
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$repo/scripts/lib.sh"
announce peers
case ${1:-} in -h | --help) usage ;; esac

# The line of wasmtime that Marram itself is built on, and the workerd of the same month.
wasmtime=48.0.8
workerd=1.20261117.1

peers=${1:-${CARGO_TARGET_DIR:-$repo/target}/bench-peers}
mkdir -p "$peers"
peers=$(cd "$peers" && pwd)

if ! command -v wrk > /dev/null; then
  command -v apt-get > /dev/null || fail "wrk is missing" "install it from your system's packages"
  apt_install wrk
fi

if [ ! -e "$peers/wasmtime/$wasmtime" ]; then
  say "compiling wasmtime-cli $wasmtime (a quarter of an hour on two cores, once)"
  CARGO_TARGET_DIR="$peers/wasmtime-build" cargo install --quiet --locked --force --version "$wasmtime" \
    --root "$peers/wasmtime" wasmtime-cli >&2
  rm -rf "$peers/wasmtime-build"
  : > "$peers/wasmtime/$wasmtime"
fi

if [ ! -e "$peers/workerd/$workerd" ]; then
  say "installing workerd $workerd"
  mkdir -p "$peers/workerd"
  echo '{"private":true}' > "$peers/workerd/package.json"
  npm install --prefix "$peers/workerd" --no-audit --no-fund --loglevel=error "workerd@$workerd" >&2
  "$peers/workerd/node_modules/workerd/bin/workerd" --version > /dev/null ||
    fail "workerd does not run on this machine" "it needs a recent glibc on x86_64 or aarch64"
  : > "$peers/workerd/$workerd"
fi
