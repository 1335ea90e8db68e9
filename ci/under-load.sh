#!/usr/bin/env bash
# ci/under-load.sh N COMMAND [ARG]...: runs the command while N other processes each keep a core
# busy. These end with this script, even if it is killed. A signal to this script ends the command
# and all processes in its process group.
set -uo pipefail
if [ $# -lt 2 ] || ! [[ $1 =~ ^[0-9]+$ ]]; then
    echo "usage: ci/under-load.sh N COMMAND [ARG]..." >&2
    exit 64
fi
count=$1
shift

# `kill -0` checks that this script is still running. If it was killed by SIGKILL, it could not end
# its processes.
busy() {
    while kill -0 $$ 2> /dev/null; do
        for ((turn = 0; turn < 200000; turn++)); do :; done
    done
}

processes=()
command=
end() {
    [ ${#processes[@]} -eq 0 ] || kill "${processes[@]}" 2> /dev/null
    processes=()
}
interrupted() {
    [ -z "$command" ] || kill -TERM -- "-$command" 2> /dev/null
    exit "$1"
}
trap end EXIT
trap 'interrupted 129' HUP
trap 'interrupted 130' INT
trap 'interrupted 143' TERM

for ((number = 0; number < count; number++)); do
    busy &
    processes+=($!)
done
# Job control gives the command a separate process group.
set -m
"$@" < /dev/null &
command=$!
set +m
wait "$command"
code=$?
command=
exit "$code"
