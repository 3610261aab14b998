#!/usr/bin/env bash
# Builds the JavaScript engine: QuickJS and its prelude to a core WebAssembly module, booted and snapshotted.
#
#   guests/js-engine/build.sh        the result is $MARRAM_ENGINES/js.wasm, and js-memory.wasm, which it imports
#
#   MARRAM_ENGINES     where engines go (default: <repository>/target/engines)
#   MARRAM_TOOLCHAIN   where scripts/guest-toolchain.sh keeps its compiler, where one is needed
#   CARGO_TARGET_DIR   where cargo builds (default: <repository>/target/js-engine)
#
# Needs cargo, npm (for one package of JavaScript) and a clang that knows wasm32. Progress goes to stderr, the path of the
# engine to stdout.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo=$(cd "$here/../.." && pwd)
engines=${MARRAM_ENGINES:-$repo/target/engines}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$repo/target/js-engine}
# QuickJS measures its stack only where the target is not WASI, and this target needs no WASI at all.
target=wasm32-unknown-unknown
streams=web-streams-polyfill@4.3.0

# shellcheck source=scripts/lib.sh
. "$repo/scripts/lib.sh"
announce js-engine

mkdir -p "$engines" "$CARGO_TARGET_DIR"

# --- the C compiler --------------------------------------------------------------------------------------------------

first_of() {
  local name
  for name in "$@"; do command -v "$name" && return; done
  return 1
}
find_clang() { clang=$(first_of clang-22 clang clang-19 clang-16 clang-14) && ar=$(first_of llvm-ar-22 llvm-ar llvm-ar-19 llvm-ar-16 llvm-ar-14); }
if ! find_clang && command -v apt-get >/dev/null; then apt_install clang-22 llvm-22 || apt_install clang llvm; fi
find_clang || fail "no clang with llvm-ar" "install clang and llvm"
export CC_wasm32_unknown_unknown=$clang AR_wasm32_unknown_unknown=$ar
export CFLAGS_wasm32_unknown_unknown="-O3 -fno-math-errno"

# --- the Rust target -------------------------------------------------------------------------------------------------

cargo_target=(cargo build --release --target "$target")
if [ ! -d "$(rustc --print sysroot)/lib/rustlib/$target/lib" ] && ! timeout 120 rustup target add "$target" >&2; then
  say "rustup cannot give $target; using Debian's compiler"
  # shellcheck source=/dev/null
  . "$("$repo/scripts/guest-toolchain.sh" --from debian)"
  cargo_target=(env "RUSTC=$MARRAM_TOOLCHAIN/bin/rustc-guest" RUSTC_BOOTSTRAP=1 "${cargo_target[@]}" -Zbuild-std=std,panic_abort)
fi

# --- the streams -----------------------------------------------------------------------------------------------------

npm_dir=$CARGO_TARGET_DIR/npm/${streams/@/-}
if [ ! -e "$npm_dir/package/dist/ponyfill.js" ]; then
  say "fetching $streams"
  mkdir -p "$npm_dir"
  (cd "$npm_dir" && tar xzf "$(npm pack --silent "$streams")")
fi
export MARRAM_JS_STREAMS=$npm_dir/package/dist/ponyfill.js

# --- build and snapshot ----------------------------------------------------------------------------------------------

say "building the engine"
(cd "$here" && RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+bulk-memory,+sign-ext,+nontrapping-fptoint" "${cargo_target[@]}" >&2)
say "taking the snapshot"
(cd "$here/snapshot" && cargo run --release --quiet -- \
  "$CARGO_TARGET_DIR/$target/release/marram_js_engine.wasm" "$engines/js.wasm.new" "$engines/js-memory.wasm.new" >&2)
mv "$engines/js-memory.wasm.new" "$engines/js-memory.wasm"
mv "$engines/js.wasm.new" "$engines/js.wasm"
say "ready: $(wc -c <"$engines/js.wasm") bytes"
printf '%s\n' "$engines/js.wasm"
