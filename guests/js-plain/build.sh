#!/usr/bin/env bash
# Builds an ordinary JavaScript component with componentize-js, as its users do.
#
#   guests/js-plain/build.sh COMPONENT     where to write it
#
# Called by scripts/build-guests.sh. Needs node and npm.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo=$(cd "$here/../.." && pwd)
# shellcheck source=scripts/lib.sh
. "$repo/scripts/lib.sh"
announce js-plain
out=${1:?where to write the component}
package=@bytecodealliance/componentize-js@0.23.0
packages=${MARRAM_TOOLCHAIN:-$repo/target/guest-toolchain}/npm/${package##*/}

# Installs packages into folder $1, by the Node.js that is first on the PATH: npm leaves out what does not suit that one.
install() {
  local npm
  npm=$(readlink -f "$(command -v npm)")
  say "installing ${*:2}"
  mkdir -p "$1"
  node "$npm" install --prefix "$1" --no-audit --no-fund --loglevel=error "${@:2}" >&2 ||
    fail "npm could not install ${*:2}" "is a package registry reachable?"
  : >"$1/complete"
}

# Debian 12 has Node.js 18, and componentize-js needs 20.
if [ "$(node --print 'process.versions.node.split(".")[0]')" -lt 20 ]; then
  [ -e "$packages/node/complete" ] || install "$packages/node" node@22
  export PATH="$packages/node/node_modules/.bin:$PATH"
fi
[ -e "$packages/complete" ] || install "$packages" "$package"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -r "$here/wit" "$work/"
wasi_wit "$work/wit/deps"
# The interfaces are the same in every 0.2 since; the engine asks for its own version by name.
sed -i 's/0\.2\.12/0.2.10/g' "$work/wit/deps"/*.wit

# In the packages' folder, because that is where Node.js looks for them.
(cd "$packages" && node --input-type=module - "$here/app.js" "$work/wit" "$out.new" >&2 <<'END'
import { componentize } from '@bytecodealliance/componentize-js';
import { writeFile } from 'node:fs/promises';

const [sourcePath, witPath, out] = process.argv.slice(2);
const { component } = await componentize({ sourcePath, witPath, worldName: 'plain' });
await writeFile(out, component);
END
)
mv "$out.new" "$out"
