#!/usr/bin/env bash
# Installs the MQTT clients that the broker is tested with, and the broker that its bridge is: mosquitto_pub, mosquitto_sub
# and mosquitto from the system's packages; paho (3.1.1 and 5.0) and gmqtt (5.0) from PyPI, in a folder of their own.
#
#   scripts/mqtt-clients.sh
#
#   MARRAM_MQTT_CLIENTS    where the folder is (default: mqtt-clients/ in the target folder)
#
# Quick when all are there. Progress goes to stderr, the path of the folder's python to stdout.
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$repo/scripts/lib.sh"
announce mqtt-clients
case ${1:-} in -h | --help) usage ;; esac

packages=(paho-mqtt==2.2.0 gmqtt==0.8.0)
venv=${MARRAM_MQTT_CLIENTS:-${CARGO_TARGET_DIR:-$repo/target}/mqtt-clients}

if ! command -v mosquitto_pub > /dev/null || ! command -v mosquitto_sub > /dev/null; then
  command -v apt-get > /dev/null ||
    fail "mosquitto_pub and mosquitto_sub are missing" "install the package mosquitto-clients, or what your system calls it"
  apt_install mosquitto-clients
fi
# Debian has the broker where only root looks.
if ! PATH=$PATH:/usr/sbin command -v mosquitto > /dev/null; then
  command -v apt-get > /dev/null || fail "mosquitto is missing" "install the package mosquitto, or what your system calls it"
  apt_install mosquitto
  # The package makes it a service, which would take port 1883 from then on; the tests start their own.
  as_root systemctl disable --quiet --now mosquitto 2> /dev/null || true
fi
if [ ! -e "$venv/${packages[*]}" ]; then
  say "installing ${packages[*]}"
  python3 -m venv "$venv" >&2 ||
    fail "python3 cannot make a virtual environment" "install Python 3.10 or newer with its venv module (Debian: python3-venv)"
  "$venv/bin/pip" install --quiet "${packages[@]}" >&2 || fail "pip could not install ${packages[*]}" "is a package index reachable?"
  : > "$venv/${packages[*]}"
fi
printf '%s\n' "$venv/bin/python"
