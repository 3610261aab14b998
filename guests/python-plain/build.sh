#!/usr/bin/env bash
# Builds an ordinary Python component with componentize-py, as its users do.
#
#   guests/python-plain/build.sh COMPONENT     where to write it
#
# Called by scripts/build-guests.sh.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo=$(cd "$here/../.." && pwd)
# shellcheck source=scripts/lib.sh
. "$repo/scripts/lib.sh"
announce python-plain
out=${1:?where to write the component}

# A copy, because WASI's definitions are added and importing leaves __pycache__ behind.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -r "$here/app.py" "$here/wit" "$work/"
wasi_wit "$work/wit/deps"

use_python_tool componentize-py
(cd "$work" && "$tool" --quiet -d wit -w plain componentize app -o "$out.new" >&2)
mv "$out.new" "$out"
