#!/usr/bin/env bash
# ci/slowest.sh [N [COMMAND [ARG]...]]: runs the tests, or the command, and prints the N slowest
# tests (by default 20) with their times in seconds, and the sum of all times. Tests run in
# parallel, so the sum is larger than the elapsed time.
set -uo pipefail
cd "$(dirname "$0")/.."
count=${1:-20}
shift
[ $# -gt 0 ] || set -- cargo test --locked --features cli

times=$(mktemp)
trap 'rm -f "$times"' EXIT
start=$SECONDS
FLOCKWORK_TEST_TIMES=$times "$@"
code=$?
tests=$(cut -d' ' -f2 "$times" | sort -u | wc -l)
printf '\n== the slowest of %s tests; all of them took %s s\n' "$tests" $((SECONDS - start))
# A property test writes a line for each case.
awk '
    { took[$2] += $1; all += $1 }
    END {
        for (name in took) printf "%8.1f  %s\n", took[name], name
        printf "%8.1f  all\n", all
    }
' "$times" | sort -rn | head -$((count + 1))
exit "$code"
