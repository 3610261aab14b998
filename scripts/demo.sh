#!/usr/bin/env bash
# Builds Marram and the shop in examples/shop, serves the shop on a node of its own, sends it visitors, shows what came
# back and where to look, and goes on serving until Ctrl-C. Every answer is compared with what it has to be.
#
#   scripts/demo.sh [--check]        --check: on free ports, look closer (escaping, log, usage), and stop
#
#   DEMO_PORT          where the shop is served (default: 3000)
#   DEMO_ADMIN_PORT    where the node is administered (default: 7070)
#   DEMO_STATE         the folder of what the node keeps (default: demo/ in the target folder)
#
# `make demo` and `make demo CHECK=1` are the same. Can be run again: what is built and compiled already is kept.
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$repo/scripts/lib.sh"
announce demo

target=${CARGO_TARGET_DIR:-$repo/target}
marram=$target/release/marram
shop=$repo/examples/shop
state=${DEMO_STATE:-$target/demo}
port=${DEMO_PORT:-3000}
admin_port=${DEMO_ADMIN_PORT:-7070}
check=
case ${1:-} in
  --check) check=1 port=0 admin_port=0 ;;
  -h | --help) usage ;;
  ?*) fail "unknown argument $1" "see $0 --help" ;;
esac

work=$(mktemp -d)
[ -z "$check" ] || state=$work/state
node=''
logs=''
password=$(od -An -N4 -tx4 /dev/urandom | tr -d ' ')
unset MARRAM_TOKEN MARRAM_CA

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
  bold=$'\e[1m' dim=$'\e[2m' green=$'\e[32m' cyan=$'\e[36m' plain=$'\e[0m'
else
  bold='' dim='' green='' cyan='' plain=''
fi

# --- what is needed --------------------------------------------------------------------------------------------------

# Before minutes of building, not after.
port_is_free() {
  [ "$1" = 0 ] || ! (exec 9<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null ||
    fail "port $1 of 127.0.0.1 is taken" \
      "stop what listens there, or take others: make demo DEMO_PORT=3001 DEMO_ADMIN_PORT=7071"
}

# Runs a command, and shows what it says only if it fails.
quietly() {
  local said
  said=$("$@" 2>&1) || { printf '%s\n' "$said" >&2 && fail "this failed: $*"; }
}

build() {
  "${MAKE:-make}" --no-print-directory -C "$repo" build
  # shellcheck source=/dev/null
  . "${MARRAM_TOOLCHAIN:-$target/guest-toolchain}/env.sh"
  [ -e "$shop/target/wasm32-wasip2/release/price.wasm" ] || say "building the shop's Rust function (half a minute, once)"
  # Flags for the machine's own programs (a linker, target-cpu=native) are wrong for functions.
  quietly env -u RUSTFLAGS -u CARGO_BUILD_RUSTFLAGS "$marram" build "$shop"
}

# --- the node --------------------------------------------------------------------------------------------------------

# Starts the node, and waits until it says where it listens.
start() {
  mkdir -p "$state"
  mkfifo "$work/urls"
  # In a process group of its own: Ctrl-C is for this script, which then drains the node.
  set -m
  "$marram" node --listen "127.0.0.1:$port" --admin "127.0.0.1:$admin_port" --state "$state/node" --log warn \
    >"$work/urls" 2>"$state/node.log" &
  node=$!
  set +m
  local line
  exec 3<"$work/urls"
  while read -r -t 60 -u 3 line; do
    case $line in
      http=*) http=${line#*=} ;;
      admin=*) export MARRAM_NODE=${line#*=} && return ;;
    esac
  done
  cat "$state/node.log" >&2
  fail "the node did not start"
}

# However this script ends, the node finishes what it is doing.
stop() {
  local result=$?
  trap - EXIT INT TERM HUP
  if [ -n "$logs" ]; then kill "$logs" 2>/dev/null || true; fi
  if [ -n "$node" ] && kill "$node" 2>/dev/null; then
    [ -n "$check" ] || printf '\n%sdraining%s\n' "$dim" "$plain"
    wait "$node" || say "the node ended with $?; its log is $state/node.log"
  fi
  if [ -n "$check" ] && [ "$result" != 0 ]; then cat "$state/node.log" >&2 2>/dev/null || true; fi
  rm -rf "$work"
  exit "$result"
}

deploy() {
  printf '%s' "$password" | quietly "$marram" secret set shop report_password
  if [ -n "$check" ]; then quietly "$marram" deploy "$shop"; else "$marram" deploy "$shop" >/dev/null; fi
}

# --- visitors --------------------------------------------------------------------------------------------------------

title() { printf '\n%s%s%s  %s%s%s\n' "$bold" "$1" "$plain" "$dim" "${2:-}" "$plain"; }
indented() { sed 's/^/  /'; }

# Asks the shop: a path, then options of curl. The answer goes to $answer, its head to $head.
ask() {
  local path=$1
  shift
  answer=$(curl --silent --show-error --noproxy '*' --max-time 30 --dump-header "$work/head" "$@" "$http$path") ||
    fail "no answer from $http$path" "the node's log is $state/node.log"
  head=$(tr -d '\r' <"$work/head")
  # Between number and currency is a space that does not break; here it is one like any other.
  answer=${answer//$'\xc2\xa0'/ }
}

# Compares: what it is about, the text, and every part that has to be in it.
expect() {
  local what=$1 text=$2 part
  shift 2
  for part in "$@"; do
    [[ $text == *"$part"* ]] || { printf '%s\n' "$text" >&2 && fail "$what: \"$part\" is not in the text above"; }
  done
  [ -z "$check" ] || printf '  %sok%s  %s\n' "$green" "$plain" "$what"
}

# A page in one line: the greeting, the first thing with its price, and the discounts.
summary() {
  sed -n '
    s:.*<h1>\(.*\)</h1>.*:\1:p
    0,/<b>/ s:.*<br>\(.*\)<b>\(.*\)</b>.*:\1 \2:p
    s:</em><em>:  ·  :g
    s:.*<em>\(.*\)</em>.*:\1:p' <<<"$1" | paste -sd '|' | sed 's/|/  ·  /g'
}

visit() {
  local who=$1 how=$2
  shift 2
  local options=() && while [ "$1" != -- ]; do options+=("$1") && shift; done && shift
  ask / "${options[@]}"
  [ -n "$check" ] || { title "$who" "$how" && summary "$answer" | indented; }
  expect "$who" "$head"$'\n'"$answer" 'HTTP/1.1 200' 'text/html' "$@"
}

visitors() {
  visit 'A visitor from Berlin' 'Accept-Language: de-DE' -H 'accept-language: de-DE,de;q=0.9,en;q=0.5' -- \
    '<html lang="de">' '<h1>Moin</h1>' 'Sturmlaterne<b>49,00 €</b>' 'Gezeitenuhr<b>129,00 €</b>'
  visit 'A visitor from Boston, on a phone' 'Accept-Language: en-US · Sec-CH-UA-Mobile: ?1' \
    -H 'accept-language: en-US,en' -H 'sec-ch-ua-mobile: ?1' -- \
    '<html lang="en">' 'Storm lantern<b>$50.74</b><s>$53.41</s>' '−5 % on your phone'
  visit 'Zoé from Geneva, a member' 'Accept-Language: fr-CH · Cookie: name=Zoé; member=yes' \
    -H 'accept-language: fr-CH,fr' -H 'cookie: name=Zo%C3%A9; member=yes' -- \
    '<html lang="fr">' '<h1>Bienvenue, Zoé</h1>' 'Lanterne tempête<b>41,45 CHF</b><s>46,06 CHF</s>' '−10 % pour les membres'
  ask /report --user "owner:$password"
  [ -n "$check" ] || { title "The owner's report" '/report' && indented <<<"$answer"; }
  expect "The owner's report" "$head"$'\n'"$answer" 'HTTP/1.1 200' 'de-DE' 'CHF' '281.50' '239.28' '85.0 %'
}

# --- a closer look ---------------------------------------------------------------------------------------------------

# Tries until a command gives a text with all of these parts: what the functions log is written down a little later.
eventually() {
  local what=$1 command=$2 text='' part missing deadline=$((SECONDS + 20))
  shift 2
  while [ "$SECONDS" -lt "$deadline" ]; do
    text=$($command) missing=''
    for part in "$@"; do [[ $text == *"$part"* ]] || missing=1; done
    [ -n "$missing" ] || break
    sleep 0.1
  done
  expect "$what" "$text" "$@"
}

used() { "$marram" usage --app shop | awk 'NR > 1 { print $1, "runs:", $2, "failed:", $3 }'; }

look_closer() {
  visit 'A visitor who chose' '' -H 'accept-language: de-CH' -H 'cookie: language=en; currency=GBP' -- \
    'Enamel mug<b>£12.47</b>'
  visit 'A phone by its User-Agent, and a second language' '' -H 'user-agent: Mozilla/5.0 (iPhone) Mobile/15E148' \
    -H 'accept-language: nl, en;q=0.2, fr; q=0.7, de;q=0' -- 'Lanterne tempête<b>46,55 €</b>'
  visit 'A visitor with a tag for a name' '' -H 'cookie: name=%3Cscript%3E' -- 'Welcome, &#60;script&#62;'
  local id
  id=$(sed -n 's/^marram-request-id: //p' <<<"$head")
  ask / --data 'name=Zoé&language=fr&currency=CHF&member=yes'
  expect 'Choices are kept in cookies' "$head" 'HTTP/1.1 303' 'location: /' 'name=Zo%C3%A9;' 'language=fr;' 'member=yes;'
  ask /report
  expect 'The report is for the owner alone' "$head" 'HTTP/1.1 401' 'www-authenticate: Basic'
  ask /report --user "owner:$password" -H 'accept: application/json'
  expect 'The report as JSON' "$(python3 -m json.tool <<<"$answer")" '"market": "fr-FR"' '"currency": "GBP"' '"computer": 100.0'
  ask /nothing
  expect 'What is not there' "$head"$'\n'"$answer" 'HTTP/1.1 404' 'application/problem+json'
  eventually 'The log of one request, through two functions' "$marram logs --request $id" \
    'shop/page' 'page in en for <script>' 'shop/price' 'EUR in en for a computer'
  eventually 'The log of the report' "$marram logs --app shop --function report" 'report over 5 markets'
  # Six pages and a form; three reports, of which two asked for 5 × 4 prices each.
  eventually 'The usage of each function' used \
    'shop/page runs: 7 failed: 0' 'shop/price runs: 46 failed: 0' 'shop/report runs: 3 failed: 0'
}

# --- and on ----------------------------------------------------------------------------------------------------------

where_to_look() {
  title 'What they used' 'marram usage'
  "$marram" usage --app shop | indented
  title 'Where to look'
  cat <<END
  ${cyan}$http/$plain  the shop: change your name, language and currency
  ${cyan}${http/\/\//\/\/owner:$password@}/report$plain  the owner's report
  In another terminal:
    ${bold}export PATH=${marram%/marram}:\$PATH MARRAM_NODE=$MARRAM_NODE$plain
    ${bold}marram deploy examples/shop$plain   after a change to page.js, say
    ${bold}marram apps shop$plain              what is deployed; ${bold}marram --help$plain has the rest
END
  title 'What the functions say' 'marram logs --follow'
}

trap stop EXIT
trap 'exit 130' INT TERM HUP
port_is_free "$port"
port_is_free "$admin_port"
build
start
deploy
visitors
if [ -n "$check" ]; then
  look_closer
  kill "$node"
  wait "$node" || fail "the node did not drain: it ended with $?"
  node=''
  say "all as it has to be"
  exit
fi
trap 'exit 0' INT TERM HUP
where_to_look
say "serving; Ctrl-C drains and ends"
"$marram" logs --app shop --follow --limit 3 2>/dev/null &
logs=$!
wait "$node" || fail "the node ended with $?" "its log is $state/node.log"
