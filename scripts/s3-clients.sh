#!/usr/bin/env bash
# Installs the S3 clients that the node is tested with: boto3 and the AWS CLI from PyPI, in a folder of their own.
#
#   scripts/s3-clients.sh
#
#   MARRAM_S3_CLIENTS    where the folder is (default: s3-clients/ in the target folder)
#
# Quick when all are there. Progress goes to stderr, the path of the folder's python to stdout.
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$repo/scripts/lib.sh"
announce s3-clients
case ${1:-} in -h | --help) usage ;; esac

# The CLI brings a botocore of its own, so that two of them are tested.
packages=(boto3==1.44.8 awscli==1.46.3)
venv=${MARRAM_S3_CLIENTS:-${CARGO_TARGET_DIR:-$repo/target}/s3-clients}

if [ ! -e "$venv/${packages[*]}" ]; then
  say "installing ${packages[*]}"
  python3 -m venv "$venv" >&2 ||
    fail "python3 cannot make a virtual environment" "install Python 3.10 or newer with its venv module (Debian: python3-venv)"
  "$venv/bin/pip" install --quiet "${packages[@]}" >&2 || fail "pip could not install ${packages[*]}" "is a package index reachable?"
  : > "$venv/${packages[*]}"
fi
printf '%s\n' "$venv/bin/python"
