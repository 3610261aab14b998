#!/usr/bin/env bash
# Builds the Python engine: CPython, the standard library's common modules, and app/, as one component whose memory is a
# snapshot taken after all of it was imported.
#
#   guests/python-engine/build.sh      the result is $MARRAM_ENGINES/python.wasm
#
# Called by scripts/build-engines.sh, whose variables it reads.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo=$(cd "$here/../.." && pwd)
# shellcheck source=scripts/lib.sh
. "$repo/scripts/lib.sh"
out=${MARRAM_ENGINES:-$repo/target/engines}/python.wasm
mkdir -p "$(dirname "$out")"
announce python-engine

# A copy, because importing leaves __pycache__ behind.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -r "$here/app" "$here/wit" "$work/"
wasi_wit "$work/wit/deps"
mkdir -p "$work/wit/deps/engine"
cp "$repo"/wit/engine/*.wit "$work/wit/deps/engine/"

use_python_tool componentize-py
"$(dirname "$tool")/pip" install --quiet --target "$work/app" tzdata==2026.6 >&2
(cd "$work" && "$tool" --quiet -d wit -w engine componentize marram_engine.entry -p app -o "$out.new" >&2)
mv "$out.new" "$out"
