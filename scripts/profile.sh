#!/usr/bin/env bash
# Takes the profile that scripts/dist.sh optimizes by: builds a binary that counts what runs in it, and puts a little of everything
# that a node does often on it (benches/train.py).
#
#   scripts/profile.sh [new]        prints the profile's path; with `new`, takes it again
#
# A quarter of an hour on two cores; quick if there is one of this compiler, these dependencies and these modules. The engines and guests of the tests
# are built first. Progress goes to stderr.
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$repo/scripts/lib.sh"
announce profile
case ${1:-} in -h | --help) usage ;; esac

cd "$repo"
target=${CARGO_TARGET_DIR:-$repo/target}
mkdir -p "$target/pgo"
target=$(cd "$target" && pwd)
case $target in *[[:space:]]*) fail "the compiler's flags cannot name $target" "use a target folder without spaces" ;; esac
counts=$target/pgo/raw

# The program is another one with another compiler, other dependencies or other modules: what moves to a new one has no counts, and
# where that was on a hot path it cost an eighth. Other changes of our own leave it nearly the same.
of=$( (rustc -vV; cat Cargo.lock; find crates -path '*/src/*.rs' | LC_ALL=C sort) | sha256sum | cut -c1-16)
profile=$target/pgo/marram-$of.profdata
if [ "${1:-}" != new ] && [ -e "$profile" ]; then
  printf '%s\n' "$profile"
  exit
fi

# The tool that reads the counts is one of the compiler's own version.
host=$(rustc -vV | sed -n 's/^host: //p')
llvm=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
profdata=
find_profdata() {
  local tool
  for tool in "$(rustc --print sysroot)/lib/rustlib/$host/bin/llvm-profdata" "llvm-profdata-$llvm"; do
    if command -v "$tool" >/dev/null; then profdata=$tool; fi
  done
  [ -n "$profdata" ]
}
find_profdata || rustup component add llvm-tools >&2 || true
find_profdata || fail "there is no llvm-profdata for LLVM $llvm" "rustup component add llvm-tools"
command -v wrk >/dev/null || apt_install wrk

"$repo/scripts/guest-toolchain.sh" >/dev/null
guests=$(MARRAM_SKIP_PLAIN=1 "$repo/scripts/build-guests.sh")
say "building a binary that counts"
RUSTFLAGS="${RUSTFLAGS:+$RUSTFLAGS }-Cprofile-generate=$counts" cargo build --profile dist --locked --target-dir "$target/pgo" \
  -p marram -p marram-mqtt --bin marram --example mqtt_load >&2
say "counting"
# What the build's own programs have counted is of no use.
rm -rf "$counts"
python3 "$repo/benches/train.py" "$target/pgo/dist/marram" "$guests" "$target/pgo/dist/examples/mqtt_load" "$target/pgo/train" >&2
rm -rf "$target/pgo/train"
[ -n "$(ls "$counts")" ] || fail "the binary has counted nothing" "look into $target/pgo"
"$profdata" merge --output "$profile.new" "$counts"
mv "$profile.new" "$profile"
rm -rf "$counts"
printf '%s\n' "$profile"
