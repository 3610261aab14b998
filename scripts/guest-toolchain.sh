#!/usr/bin/env bash
# Makes a Rust toolchain for WebAssembly guests available: afterwards `cargo build --release --target wasm32-wasip2`
# works in any folder from which the env file that this script writes has been sourced.
#
#   scripts/guest-toolchain.sh [--from auto|rustup|debian]
#   . "$MARRAM_TOOLCHAIN/env.sh"
#
# Two ways lead there. `rustup` adds the target to the toolchain that is already here. `debian` is for machines that reach
# Debian's packages but not rustup's server: it unpacks Debian's newer compiler beside the real one (it is never
# installed, because its package conflicts with rustup's), builds the standard library for the target once, and puts a
# small `cargo` in front of the real one that hands over to that compiler for wasm32-wasip targets only.
# `auto`, the default, tries the first and falls back to the second. The way taken is kept until it is named anew.
#
#   MARRAM_TOOLCHAIN   where everything goes (default: <repository>/target/guest-toolchain)
#
# Quick when there is nothing to do. Needs neither root nor sudo, except for `apt-get update` when Debian's package lists
# have never been fetched. Progress goes to stderr, the path of the env file to stdout.
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
toolchain=${MARRAM_TOOLCHAIN:-$repo/target/guest-toolchain}
targets=(wasm32-wasip1 wasm32-wasip2)
# The compiler, its libraries, the sources of the standard library, the linker, and the C library for the target.
packages=(rustc-web libstd-rust-web-dev rust-web-src rust-web-llvm lld-22 libllvm22 wasi-libc)

say() { printf 'guest-toolchain: %s\n' "$*" >&2; }
fail() {
  say "error: $1"
  [ $# -lt 2 ] || say "hint: $2"
  exit 1
}

way=auto
while [ $# -gt 0 ]; do
  case $1 in
    --from) way=${2:?--from needs auto, rustup or debian} && shift 2 ;;
    -h | --help) sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "$0" && exit ;;
    *) fail "unknown argument $1" "see $0 --help" ;;
  esac
done
case $way in auto | rustup | debian) ;; *) fail "--from $way is not known" "use auto, rustup or debian" ;; esac

mkdir -p "$toolchain"
toolchain=$(cd "$toolchain" && pwd)
real_cargo=$(PATH=${PATH//$toolchain\/bin:/} command -v cargo) ||
  fail "no cargo on the PATH" "install Rust (rustup, or your system's package) and run this again"

# --- rustup ----------------------------------------------------------------------------------------------------------

target_is_installed() { [ -d "$(cd / && rustc --print sysroot)/lib/rustlib/$1/lib" ]; }

from_rustup() {
  local target
  for target in "${targets[@]}"; do
    target_is_installed "$target" && continue
    command -v rustup >/dev/null || return 1
    say "rustup target add $target"
    # rustup retries a dead connection for a long time; a machine without one should reach the other way soon.
    timeout 120 rustup target add "$target" >&2 || return 1
  done
  write_env rustup <<'END'
# The toolchain on the PATH has the targets itself: nothing to set.
END
}

# --- debian ----------------------------------------------------------------------------------------------------------

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

# The run-time libraries of rustc-web carry its version in their package's name; the dependency says which it is.
with_runtime_package() {
  local runtime
  runtime=$(apt-cache depends libstd-rust-web-dev | sed -n 's/.*Depends: \(libstd-rust-web-[0-9.]*\)$/\1/p' | head -1)
  [ -n "$runtime" ] || return 1
  packages+=("$runtime")
}

unpack_packages() {
  local root=$1 debs=$toolchain/debs deb
  command -v apt-get >/dev/null ||
    fail "neither rustup nor Debian's packages can give the target" "install it with: rustup target add wasm32-wasip2"
  with_runtime_package || {
    say "apt-get update"
    as_root apt-get update -q >&2
    with_runtime_package || fail "Debian's lists have no rustc-web" "this way needs Debian 12 or newer with its security updates"
  }
  rm -rf "$debs" "$root" && mkdir -p "$debs" "$root"
  say "downloading ${packages[*]} (140 MB)"
  (cd "$debs" && apt-get download -q "${packages[@]}" >&2)
  for deb in "$debs"/*.deb; do
    say "unpacking $(basename "$deb")"
    dpkg -x "$deb" "$root"
  done
  rm -rf "$debs"
}

# With the standard library in the compiler's own folders, users' projects need no -Zbuild-std and no 75 s each.
build_std() {
  local root=$1 target=$2 work=$toolchain/std lib
  lib=$root/usr/lib/rustlib/$target/lib
  [ -e "$lib/complete" ] && return
  say "building the standard library for $target (about a minute, once)"
  rm -rf "$work" "$lib" && mkdir -p "$work/src" "$lib/self-contained"
  printf '[package]\nname = "std-builder"\nversion = "0.0.0"\nedition = "2024"\n[workspace]\n' >"$work/Cargo.toml"
  : >"$work/src/lib.rs"
  (cd "$work" && env -u RUSTFLAGS -u CARGO_BUILD_TARGET RUSTC="$toolchain/bin/rustc-guest" RUSTC_BOOTSTRAP=1 \
    CARGO_TARGET_DIR="$work/target" "$real_cargo" build --release -Zbuild-std=std,panic_abort,panic_unwind --target "$target" >&2)
  cp "$work/target/$target/release/deps/"*.rlib "$work/target/$target/release/deps/"*.rmeta "$lib/"
  rm -f "$lib/"libstd_builder-* && rm -rf "$work"
  cp "$root/usr/lib/wasm32-wasi/"{crt1-command.o,crt1-reactor.o,libc.a} "$lib/self-contained/"
  : >"$lib/complete"
}

write_wrappers() {
  local root=$1
  mkdir -p "$toolchain/bin"
  cat >"$toolchain/bin/rustc-guest" <<END
#!/bin/sh
# Debian's compiler, run from where it was unpacked.
export LD_LIBRARY_PATH="$root/usr/lib/$(uname -m)-linux-gnu\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}"
export PATH="$root/usr/bin:\$PATH"
exec "$root/usr/bin/rustc" "\$@"
END
  # The whole build goes to one compiler, host parts too: procedural macros must come from the compiler that loads them.
  cat >"$toolchain/bin/cargo" <<END
#!/bin/sh
# The real cargo; for wasm32-wasip targets with the compiler that has them.
case " \$* \${CARGO_BUILD_TARGET:-} " in
  *wasm32-wasip[12]*) export RUSTC="$toolchain/bin/rustc-guest" ;;
esac
exec "$real_cargo" "\$@"
END
  chmod +x "$toolchain/bin/rustc-guest" "$toolchain/bin/cargo"
}

from_debian() {
  local root=$toolchain/root target
  [ -e "$root/complete" ] || { unpack_packages "$root" && : >"$root/complete"; }
  write_wrappers "$root"
  for target in "${targets[@]}"; do build_std "$root" "$target"; done
  write_env debian <<END
# \`cargo build --target wasm32-wasip2\` goes to the compiler that was unpacked here; everything else to the real one.
case ":\$PATH:" in *":$toolchain/bin:"*) ;; *) export PATH="$toolchain/bin:\$PATH" ;; esac
END
}

# --- both ------------------------------------------------------------------------------------------------------------

write_env() {
  {
    printf '# Written by scripts/guest-toolchain.sh; source it in a POSIX shell.\n# way: %s\n' "$1"
    printf 'export MARRAM_TOOLCHAIN="%s"\n' "$toolchain"
    cat
  } >"$toolchain/env.sh.new"
  mv "$toolchain/env.sh.new" "$toolchain/env.sh"
}

if [ "$way" = auto ] && grep -qs '^# way: debian' "$toolchain/env.sh"; then way=debian; fi
case $way in
  rustup) from_rustup || fail "rustup could not add ${targets[*]}" "try --from debian" ;;
  debian) from_debian ;;
  auto) from_rustup || { say "rustup cannot give the targets here; using Debian's compiler" && from_debian; } ;;
esac
say "ready: . $toolchain/env.sh"
printf '%s\n' "$toolchain/env.sh"
