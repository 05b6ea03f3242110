#!/usr/bin/env bash
# Starts the platform with a demo on it: the one that is named, or else chosen on the terminal; word count where there is none.
#
#   scripts/run.sh [DEMO [ARGUMENT...]]
set -euo pipefail

fleuve=${CARGO_TARGET_DIR:-$(cd "$(dirname "$0")/.." && pwd)/target}/release/fleuve

if [ $# -eq 0 ] && [ -t 0 ] && [ -t 1 ]; then
    mapfile -t demos < <("$fleuve" demo | tail -n +2)
    printf '\n'
    for index in "${!demos[@]}"; do printf '  %d  %s\n' $((index + 1)) "${demos[$index]}"; done
    printf '\nWhich one? [1] '
    read -r choice || choice=1
    case ${choice:=1} in
    *[!0-9]* | 0) name=$choice ;;
    *) name=${demos[choice - 1]-$choice} ;;
    esac
    set -- "${name%% *}"
fi
[ $# -gt 0 ] || set -- word-count
[ ! -t 1 ] || printf 'Ctrl-C ends the demo.\n'
exec "$fleuve" demo "$@"
