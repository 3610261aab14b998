#!/usr/bin/env bash
# Builds the engines that run functions which ship as source, as <language>.wasm in one folder: each guests/*-engine/ has a
# build.sh that writes $MARRAM_ENGINES/<language>.wasm.
#
#   scripts/build-engines.sh [LANGUAGE]...        (default: all of them)
#
#   MARRAM_ENGINES      where they go (default: <repository>/target/engines)
#   MARRAM_TOOLCHAIN    where scripts/guest-toolchain.sh put its toolchain
#
# Quick when nothing has changed. Progress goes to stderr, the folder's path to stdout.
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$repo/scripts/lib.sh"
announce build-engines
case ${1:-} in -h | --help) usage ;; esac

out=${MARRAM_ENGINES:-$repo/target/engines}
mkdir -p "$out"
out=$(cd "$out" && pwd)

build() {
  local language=$1 engine=$repo/guests/$1-engine sources
  [ -e "$engine/build.sh" ] || fail "there is no engine for $language" "look into guests/ for what there is"
  mapfile -d '' sources < <(find "$engine" "$repo/wit" -type f -not -path '*/__pycache__/*' -not -path '*/node_modules/*' -not -path '*/target/*' -print0)
  newer "$out/$language.wasm" "${sources[@]}" && { [ "$language" != js ] || [ -e "$out/js-memory.wasm" ]; } && return
  say "building $language.wasm"
  MARRAM_ENGINES="$out" bash "$engine/build.sh" >&2
}

if [ $# = 0 ]; then
  for script_path in "$repo"/guests/*-engine/build.sh; do
    language=$(basename "$(dirname "$script_path")")
    set -- "$@" "${language%-engine}"
  done
fi
for language in "$@"; do build "$language"; done
printf '%s\n' "$out"
