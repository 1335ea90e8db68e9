#!/usr/bin/env bash
# ci/limited.sh SECONDS COMMAND [ARG]...: runs the command with a time limit. When the time is over,
# it prints what each process and thread is waiting for, and then ends the command and the processes
# that the command started.
set -uo pipefail
seconds=$1
shift

report() {
    printf '\n== still running after %s s: %s\n' "$seconds" "$*"
    ps -eLo pid,ppid,tid,stat,etimes,wchan:32,args || true
    for task in /proc/[0-9]*/task/[0-9]*; do
        read -r name < "$task/comm" || continue
        case $name in
            flockwork* | it-* | *::* | main | test*)
                printf '%s %s: %s\n' "$task" "$name" "$(cat "$task/syscall" "$task/stack" 2> /dev/null | tr '\n' ' ')"
                ;;
        esac
    done
    cat /proc/locks 2> /dev/null
} >&2 2> /dev/null

(
    # A separate process, since `timeout` ends only the processes that it has started.
    sleep "$seconds" && report "$@"
) &
watcher=$!
timeout --kill-after=30 $((seconds + 5)) "$@"
code=$?
# The watcher's `sleep` would outlive it.
pkill -P "$watcher" 2> /dev/null
kill "$watcher" 2> /dev/null
wait "$watcher" 2> /dev/null
# A test that exceeds its own limit exits with 124, too (tests/it/limit.rs).
[ "$code" = 124 ] && [ "$SECONDS" -ge "$seconds" ] && printf '\n== ended after %s s: %s\n' "$seconds" "$*" >&2
exit "$code"
