#!/usr/bin/env bash
# Builds the guest components that the tests, the benchmarks and the demo run, as <name>.wasm in one folder.
#
#   scripts/build-guests.sh [--only NAME]...
#
#   MARRAM_GUESTS            where they go (default: <repository>/target/guests)
#   MARRAM_TOOLCHAIN         where scripts/guest-toolchain.sh put its toolchain
#   MARRAM_SKIP_PLAIN=1      leave out python-plain and js-plain, which need the other languages' own toolchains (30 s)
#
# Quick when nothing has changed. Progress goes to stderr, the folder's path to stdout.
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$repo/scripts/lib.sh"
announce build-guests

out=${MARRAM_GUESTS:-$repo/target/guests}
rust_guests=(began hello-p2 hello-p3 probe-p2 probe-p3 config-draft config-rc logging bad bad-p3 middleware objects state state-draft watch
  watch-draft watch-p3)
only=()
while [ $# -gt 0 ]; do
  case $1 in
    --only) only+=("${2:?--only needs the name of a guest}") && shift 2 ;;
    -h | --help) usage ;;
    *) fail "unknown argument $1" "see $0 --help" ;;
  esac
done
wanted() { [ ${#only[@]} = 0 ] || [[ " ${only[*]} " == *" $1 "* ]]; }

mkdir -p "$out"
out=$(cd "$out" && pwd)
build=${CARGO_TARGET_DIR:-$out/build}

# Copies only what differs: the time stamp is what the later steps, and the platform's own cache, look at.
place() { cmp -s "$1" "$2" || { cp "$1" "$2.new" && mv "$2.new" "$2" && say "built $(basename "$2")"; }; }

build_rust() {
  use_guest_toolchain
  # Flags for the machine's own programs (a linker, target-cpu=native) are wrong for guests.
  (cd "$repo/guests" && env -u RUSTFLAGS -u CARGO_BUILD_RUSTFLAGS CARGO_TARGET_DIR="$build" \
    cargo build --quiet --release --target wasm32-wasip2 >&2)
  local guest
  for guest in "${rust_guests[@]}"; do
    place "$build/wasm32-wasip2/release/${guest//-/_}.wasm" "$out/$guest.wasm"
  done
}

# Two components become one: the middleware's import of a handler is met by hello-p2's export.
build_composed() {
  newer "$out/composed.wasm" "$out/middleware.wasm" "$out/hello-p2.wasm" && return
  use_python_tool wasm-tools
  "$tool" compose "$out/middleware.wasm" -d "$out/hello-p2.wasm" -o "$out/composed.new" 2>/dev/null >&2
  mv "$out/composed.new" "$out/composed.wasm"
  say "built composed.wasm"
}

# Text components ship as they are: the platform reads them itself.
place_texts() {
  local text
  for text in "$repo"/guests/wat/*.wat; do
    [ -e "$text" ] || continue
    place "$text" "$out/$(basename "$text")"
  done
}

# An ordinary component in another language has a build.sh of its own, which is given where to write.
build_plain() {
  local name=$1 sources
  mapfile -d '' sources < <(find "$repo/guests/$name" -type f -print0)
  newer "$out/$name.wasm" "${sources[@]}" && return
  say "building $name.wasm"
  bash "$repo/guests/$name/build.sh" "$out/$name.wasm" >&2
}

build_rust
build_composed
place_texts
for name in python-plain js-plain; do
  if [ -e "$repo/guests/$name/build.sh" ] && wanted "$name" && [ "${MARRAM_SKIP_PLAIN:-}" != 1 ]; then build_plain "$name"; fi
done
printf '%s\n' "$out"
