#!/usr/bin/env bash
# Builds the binary to install, or what is measured beside it: optimized as a whole, and by a profile of what a node does under
# load (docs/adr/0015).
#
#   scripts/dist.sh [ARGUMENTS OF cargo build]       (default: -p marram)
#
#   MARRAM_PROFILE=0      without the profile: half the time
#   MARRAM_PROFILE=new    take a new profile
#
# Half an hour on two cores the first time. `make dist` builds the engines that go into the binary first. Progress goes to stderr.
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$repo/scripts/lib.sh"
announce dist
case ${1:-} in -h | --help) usage ;; esac

cd "$repo"
[ $# -gt 0 ] || set -- -p marram
mode=${MARRAM_PROFILE:-}
if [ "$mode" != 0 ]; then
  if profile=$("$repo/scripts/profile.sh" ${mode:+"$mode"}); then
    export RUSTFLAGS="${RUSTFLAGS:+$RUSTFLAGS }-Cprofile-use=$profile"
  else
    say "building without a profile, which is some percent slower"
  fi
fi
cargo build --profile dist --locked "$@" >&2
