#!/usr/bin/env bash
# ci/models.sh [PATTERN | --if-changed]: checks the models of docs/model with spin. Each property
# must hold in all states, and each deliberate breakage must be found. The searches run in parallel,
# one for each core, and take some ten minutes of processor time.
#
# The outcome depends only on the models and on this script. If all searches have passed, the script
# writes their checksums to docs/model/checked.sha256. With `--if-changed` it searches only if they
# differ.
set -uo pipefail
cd "$(dirname "$0")/../docs/model" || exit

checked=checked.sha256
sums() { sha256sum ./*.pml ../../ci/models.sh; }
pattern=${1:-}
if [ "$pattern" = --if-changed ]; then
    if sums | cmp -s - $checked; then
        echo "models: not changed since all searches passed"
        exit 0
    fi
    pattern=
fi

if ! command -v spin > /dev/null || ! command -v gcc > /dev/null; then
    echo "models: left out, spin or gcc is missing"
    exit 0
fi

models=$PWD
all=$(mktemp -d)
trap 'rm -rf "$all"' EXIT
runs=0

# Starts a search in the background, in a separate directory. The file `failed` in that directory
# marks a failure.
start_search() {
    [[ "$3 $2" == *"$pattern"* ]] || return 0
    runs=$((runs + 1))
    while [ "$(jobs -rp | wc -l)" -ge "$(nproc)" ]; do wait -n; done
    work=$all/$runs
    mkdir "$work"
    "$@" &
}
holds() { start_search must_hold "$@"; }
breaks() { start_search must_break "$@"; }
# The breakage must cause an endless run in which a waiter makes no progress.
loops() { start_search must_break "$@" "-a -f -A -E"; }
failed() { tail -25 "$work/output" | tee "$work/failed"; }

# search MODEL "DEFINES" "ARGUMENTS OF pan" [OPTIMIZATION]: runs the search, with the output in
# $work/output.
search() {
    local model=$1 defines=$2 arguments=$3 flags=("${4:--O0}" -w -DMEMLIM=2000 -DVECTORSZ=1024)
    (
        cd "$work" && rm -f pan* ./*.trail output
        # shellcheck disable=SC2086 # these hold several words
        case $arguments in
            *-l*) flags+=(-DNP) ;;
            *-a*) flags+=(-DNFAIR=3) ;;
            *) flags+=(-DSAFETY -DNOCLAIM) ;;
        esac
        case $defines in *-DSTOPS*) flags+=(-DNOREDUCE) ;; esac
        # Another order of the search, where it finds the error in the memory that it may use.
        case $defines in *-DREVERSE*) flags+=(-DREVERSE) ;; esac
        # shellcheck disable=SC2086
        spin $defines -a "$models/$model.pml" > spin.output 2>&1 && [ -s pan.c ] || { cat spin.output; exit 1; }
        gcc "${flags[@]}" -o pan pan.c || exit 1
        # shellcheck disable=SC2086
        ulimit -t 560 && ./pan -m1000000 -w24 $arguments > output 2>&1
    )
}

extract() { sed -nE "$1" "$work/output" | head -1; }

# The search must visit all states and find no error.
must_hold() {
    local name=$1 model=$2 defines=$3 arguments=${4:-}
    search "$model" "$defines" "$arguments" -O1
    local errors states depth verdict=ok
    errors=$(extract 's/.*errors: ([0-9]+).*/\1/p')
    states=$(extract 's/^ *([0-9.e+]+) states, stored.*/\1/p')
    depth=$(extract 's/.*depth reached ([0-9]+).*/\1/p')
    if [ "${errors:-none}" != 0 ]; then
        verdict=FAILED
    elif grep -qE 'max search depth too small|Search not completed|out of memory|memory limit' "$work/output"; then
        verdict=PARTIAL
    fi
    [ $verdict = ok ] || failed
    printf '%-10s %-52s %9s states %6s deep  %s\n' "$model" "$name" "${states:-?}" "${depth:-?}" $verdict
}

# The search must find an error.
must_break() {
    local name=$1 model=$2 defines=$3 arguments=${4:-}
    search "$model" "$defines -DBREAK_$name" "$arguments"
    local found verdict=found
    found=$(extract 's/^pan:[0-9]+: ([^(]*).*/\1/p')
    if [ -z "$found" ]; then
        verdict=MISSED
        failed
    fi
    printf '%-10s BREAK_%-46s %s: %s\n' "$model" "$name" $verdict "${found:-nothing}"
}

m=semaphore
many="-DCLIENTS=2 -DTWO=1"
death="$many -DKILLS=1"
one="-DCLIENTS=2 -DCAPACITY=1"
handle="-DCLIENTS=3 -DONE_HANDLE -DASKS -DQUEUE=3 -DTIMED=2 -DTRY=4 -DTWO=4"
shrink="-DCLIENTS=2 -DCAPACITY=2 -DTWO=1 -DRESIZE=1"
tries="-DCLIENTS=3 -DTRY=7 -DRESIZE=1"
again="-DCAPACITY=3 -DRESIZE=2 -DRESIZE_AGAIN=1"
pause="-DRESIZE=0 -DRESIZE_AGAIN=2"
paused="-DCLIENTS=1 -DCAPACITY=3 -DRESIZE=0 -DRESIZE_AGAIN=1 -DHELD=6"
grow="-DCLIENTS=2 -DCAPACITY=1 -DSLOTS=2 -DRESIZE=2"
holds "three clients, one acquires two, one only tries" $m "-DTWO=1 -DTRY=4 -DTIMED=1"
holds "the same, and every run ends" $m "-DTWO=1 -DTRY=4" -l
holds "three slots, all clients acquire two" $m "-DCLIENTS=2 -DCAPACITY=3 -DTWO=3"
holds "one process dies at any moment" $m "$death"
holds "while a process counts free slots" $m "$death -DOBSERVES -DVICTIMS=4"
holds "one slot, an idle helper, one process dies" $m "$one -DKILLS=1 -DLEFTOVERS -DTIMED=1"
holds "one slot, two processes die" $m "$one -DKILLS=2"
holds "two threads with one handle and a helper" $m "$handle"
holds "two threads that know their slots" $m "-DONE_HANDLE -DMARKS -DCLIENTS=2 -DCAPACITY=2 -DTWO=1"
holds "no watch is available" $m "$many -DNO_WATCH"
holds "shrinking" $m "$shrink"
holds "shrinking, three clients that only try" $m "$tries"
holds "shrinking twice, two of three held" $m "$again -DCLIENTS=1 -DHELD=6"
holds "the same, two clients that only try" $m "$again -DCLIENTS=2 -DTRY=3 -DHELD=6"
holds "the same, one client that acquires two" $m "$again -DCLIENTS=1 -DTWO=1 -DHELD=6"
holds "growing, idle helpers" $m "$grow -DLEFTOVERS -DTIMED=1"
holds "a pause" $m "$pause -DCLIENTS=2 -DCAPACITY=2 -DTWO=1"
holds "a pause, one of two gives up" $m "$pause -DCLIENTS=2 -DCAPACITY=2 -DTWO=1 -DTIMED=2"
holds "a pause, then fewer, two of three held" $m "$paused"
holds "the resizing process dies" $m "$shrink -DKILLS=1 -DVICTIMS=8"
holds "one process is stopped, with the backstop" $m "-DCLIENTS=3 -DTWO=1 -DBACKSTOP -DSTOPS" -E
holds "closes are not reported, with the backstop" $m "$death -DDEAF -DBACKSTOP"
holds "an event is lost, with the backstop" $m "$many -DLOSES_EVENTS -DBACKSTOP"
breaks ANNOUNCES_LATE $m "$many"
breaks COUNTS_AFTER_THE_LOOK $m "$many"
breaks WATCH_COMES_UP_IN_SILENCE $m "$many"
breaks NO_BARRIER $m "$many"
breaks RELEASE_WITHOUT_PROBE $m "$many"
breaks NO_POKE $m "$many"
breaks LOWERS_WITHOUT_WAITERS $m "-DTWO=5"
breaks GATHERS_WITHOUT_GATE $m "-DCLIENTS=2 -DTWO=3"
breaks OBSERVER_DOES_NOT_TELL $m "$many -DOBSERVES"
breaks DEATH_KEEPS_LOCK $m "$death"
breaks NO_LOOK_AFTER_CLOSE $m "$death"
breaks NOT_IN_THE_KERNEL $m "$one"
breaks TAKES_FOR_NOBODY $m "$handle"
breaks TAKES_FROM_THE_HEAD $m "$handle"
breaks RELIES_ON_WHAT_ANOTHER_SAID $m "$handle"
breaks UNMARKS_AFTER_TELLING $m "-DONE_HANDLE -DMARKS -DCLIENTS=2 -DCAPACITY=2 -DTWO=1"
breaks NO_LOOK_AFTER_LOCKING $m "$shrink"
breaks SIGN_BEFORE_CAPACITY $m "$shrink"
breaks FORGETS_EXCESS $m "$tries"
breaks KEEPS_WHAT_IS_BEYOND $m "-DCAPACITY=3 -DRESIZE=2 -DCLIENTS=1 -DTWO=1 -DHELD=6"
breaks COUNTS_EXCESS_AFTER_THE_CHECK $m "$again -DCLIENTS=1 -DTRY=1 -DHELD=6"
breaks RESIZE_DOES_NOT_POKE $m "$grow"
breaks PAUSE_ENDS_EXCESS $m "$paused"
breaks HELPER_DOES_NOT_TELL $m "-DREVERSE -DCLIENTS=3 -DTWO=4 -DCAPACITY=1 -DSLOTS=2 -DRESIZE=2 -DLEFTOVERS -DTIMED=1"
breaks NOTHING_BUT_NO_BACKSTOP $m "-DCLIENTS=3 -DTWO=1 -DSTOPS" -E
breaks NOTHING_BUT_DEAF_WITHOUT_BACKSTOP $m "$death -DDEAF"
breaks NOTHING_BUT_LOST_EVENT_WITHOUT_BACKSTOP $m "$many -DLOSES_EVENTS"

m=handover
two="-DWAITS=2"
holds "two waits and another process, deadlines, drops" $m "$two"
holds "three waits, one gives up" $m "-DGIVE_UP=1"
holds "a helper fails or does not start" $m "$two -DFAILS=1"
holds "the file is replaced" $m "$two -DREPLACED=1 -DGIVE_UP=1"
holds "the process dies at any moment" $m "$two -DKILLED -DGIVE_UP=1"
breaks DOES_NOT_WAKE $m "$two -DGIVE_UP=0"
breaks GRANTS_OUTSIDE_THE_MUTEX $m "$two"
breaks ENDS_LINE_LATER $m "$two -DGIVE_UP=0"
breaks HELPER_LEAVES_ITS_LINE $m "$two -DFAILS=1"
breaks LOOKS_BEFORE_IT_LEAVES $m "$two"
breaks DROPS_WHAT_WAS_GRANTED $m "$two"
breaks NO_LOOK_AT_THE_PATH $m "$two -DREPLACED=1"
breaks DEATH_KEEPS_LOCK $m "$two -DKILLED"

m=signals
copy="-DCOPIES=1 -DTRY=4"
dies="-DKILLS=1 -DVICTIMS=1"
stays="-DSLOTS=2 -DHELD=3 -DSTAYS=2 -DCOPIES=1 -DTWO=4 -DTRY=4 -DCLIENTS=4"
stop="-DTRY=4 -DSTOPS=4 $dies"
holds "one slot, two waiters" $m ""
holds "all wait in turn, a copy remains, no check later" $m "-DNO_RETRY -DCOPIES=1"
holds "two slots, all wait in turn, no check later" $m "-DNO_RETRY -DSLOTS=2 -DHELD=3 -DCLIENTS=4"
holds "two copies remain" $m "-DCOPIES=2"
holds "one process dies" $m "-DKILLS=1"
holds "one process dies, a copy remains" $m "-DKILLS=1 $copy"
holds "the same, with the backstop" $m "-DKILLS=1 $copy -DBACKSTOP"
holds "the holder dies, copies of it and of another" $m "$dies -DCOPIES=2 -DCLIENTS=2"
holds "one that only tries is stopped, the holder dies" $m "$stop" -E
holds "a try for two permits, a copy remains" $m "$stays"
breaks CLOSES_BEFORE_UNLOCKING $m "-DNO_RETRY"
breaks OPENS_AFTER_LEAVING $m "-DNO_RETRY"
breaks OPENS_BEFORE_LOCKING $m "$stop" -E
breaks RELEASES_WITHOUT_PROBE $m "-DCOPIES=1"
breaks ASKS_BEFORE_UNLOCKING $m "-DCOPIES=1"
breaks SURPLUS_WITHOUT_SIGNAL $m "$stays"
breaks CHECKS_BEFORE_OPENING $m "-DCOPIES=1"
breaks TAKES_SIGNALS_AFTER_THE_CHECK $m "-DCOPIES=1"
breaks NOT_PRIMED $m "-DKILLS=1"
breaks TRUSTS_THE_FIFO $m ""
breaks NOTHING_BUT_NO_BACKSTOP $m "-DKILLS=1 $copy"

m=queue
reuse="-DPLACES=2 -DROUNDS=2"
dead="-DPLACES=2 -DKILLS=1"
two="-DPLACES=2 -DWAITERS=2"
left="-DPLACES=4 -DWAITERS=2 -DLEFTOVERS"
holds "three waiters, two places" $m "-DPLACES=2"
holds "three waiters, three places" $m ""
holds "two waiters, again and again" $m "$two -DFOREVER"
holds "one dies at any moment" $m "$dead"
holds "two die at any moment" $m "-DPLACES=2 -DKILLS=2"
holds "a copy remains, no check each second" $m "$two -DROUNDS=2 -DCOPIES=1 -DNO_SECOND"
holds "one dies, a copy remains" $m "$two -DROUNDS=2 -DCOPIES=1 -DKILLS=1"
holds "the numbers and copies of dead waiters remain" $m "$left -DCOPIES=1"
holds "progress, others join again and again" $m "$two -DFOREVER" "-a -f"
holds "progress, one dies" $m "$two -DFOREVER -DKILLS=1" "-a -f"
holds "progress, one dies, a copy remains" $m "$two -DCOPIES=1 -DKILLS=1" "-a -f"
breaks NOT_CHOOSING $m ""
breaks CLAIMS_WITHOUT_THE_LOCK $m "-DPLACES=2"
breaks CLAIMS_WHAT_IS_WATCHED $m "$reuse -DNO_SECOND"
breaks NUMBER_AFTER_CLOSING $m "$reuse"
breaks CLEARS_WITHOUT_THE_LOCK $m "$dead -DWAITERS=4"
breaks CLEARS_A_CHOOSING_ONE $m "$dead"
breaks CLEARS_AFTER_OPENING $m "$dead -DNO_SECOND"
breaks TRUSTS_AN_OLD_NUMBER $m "$dead -DNO_SECOND"
breaks CHOOSES_BEFORE_IT_IS_NAMED $m "-DPLACES=2"
breaks NO_BYTE_FOR_A_COPY $m "$two -DCOPIES=1 -DNO_SECOND"
breaks NO_CHECK_EACH_SECOND $m "$two -DCOPIES=1 -DKILLS=1"
loops NO_CHECK_EACH_SECOND $m "$two -DCOPIES=1 -DKILLS=1"

m=gate
holds "a writer and two readers" $m ""
holds "two writers and two readers" $m "-DCLIENTS=4 -DWRITERS=5"
holds "some only try or give up" $m "-DCLIENTS=4 -DWRITERS=2 -DTRY=8 -DTIMED=6"
holds "two only try" $m "-DCLIENTS=4 -DWRITERS=9 -DTRY=12"
holds "one dies at any moment" $m "-DKILLS=1"
holds "two die at any moment" $m "-DKILLS=2 -DWRITERS=3"
holds "one is stopped at any moment" $m "-DSTOPS=1" -E
holds "two are stopped, one tries, one gives up" $m "-DSTOPS=2 -DTIMED=2 -DTRY=4" -E
holds "one dies, one is stopped, one tries" $m "-DKILLS=1 -DSTOPS=1 -DTRY=4" -E
holds "progress of a writer, readers come again and again" $m "-DFOREVER" "-a -f"
holds "progress of a reader, others come again and again" $m "-DFOREVER -DWRITERS=2" "-a -f"
holds "the same, one only tries" $m "-DFOREVER -DTRY=4" "-a -f"
holds "progress, one dies" $m "-DKILLS=1" "-a -f"
holds "progress, one is stopped" $m "-DSTOPS=1" "-a -f -E"
breaks BARGES $m ""
breaks RELEASES_THE_GATE_EARLY $m ""
breaks KEEPS_THE_GATE $m ""
breaks TRUSTS_THE_GATE $m ""
breaks CHECKS_SHARED $m ""
breaks TRIES_PASS_WAITERS $m "-DTRY=4"
breaks NO_CHECK_EACH_SECOND $m "-DSTOPS=1" -E
loops BARGES $m "-DFOREVER"
loops RELEASES_THE_GATE_EARLY $m "-DFOREVER"
loops TRIES_PASS_WAITERS $m "-DFOREVER -DTRY=2"
loops NO_CHECK_EACH_SECOND $m "-DSTOPS=1"

m=event
one="-DCONSUMERS=0 -DWAITERS=1"
holds "two consumers, two settings" $m ""
holds "the same, and a process that clears" $m "-DCLEARERS=1"
holds "three settings, one consumer, one clears" $m "-DCONSUMERS=1 -DSETTERS=3 -DCLEARERS=1"
holds "a consumer dies at any moment" $m "-DKILLS=1"
holds "the same, one setting, one clears" $m "-DKILLS=1 -DSETTERS=1 -DCLEARERS=1"
holds "the lock file was replaced" $m "-DTWO_LOCKS -DCONSUMERS=3 -DPAYLOADS=0"
holds "the same, a consumer dies" $m "-DTWO_LOCKS -DKILLS=1"
holds "a waiter and a consumer" $m "-DCONSUMERS=1 -DWAITERS=1 -DSETTERS=1"
holds "one waits until it is set, one until it is clear" $m "$one -DCLEARED=1 -DCLEARERS=1"
holds "a consumer, one waits until it is clear" $m \
    "-DCONSUMERS=1 -DCLEARED=1 -DSETTERS=1 -DCLEARERS=1"
holds "progress of consumers" $m "-DIN_TURN" "-a -f"
holds "the same, a consumer dies" $m "-DIN_TURN -DKILLS=1" "-a -f"
holds "progress of a waiter" $m "$one" "-a -f"
holds "progress of one that waits until it is clear" $m \
    "-DIN_TURN -DCONSUMERS=0 -DCLEARED=1 -DCLEARERS=1 -DSETTERS=1" "-a -f"
breaks WATCH_COMES_UP_IN_SILENCE $m "$one"
breaks COUNTS_AFTER_THE_CHECK $m "$one"
breaks RELIES_ON_EVENTS_WHILE_BUSY $m "-DKILLS=1"
breaks FORGETS_WHAT_IS_TAKEN $m "-DKILLS=1"
breaks DELIVERS_BEFORE_THE_SECOND_RENAME $m "-DKILLS=1"
breaks BELIEVES_WHAT_IT_READ $m "-DTWO_LOCKS -DCONSUMERS=3 -DPAYLOADS=0"
breaks SETS_BY_A_RENAME $m "-DPAYLOADS=3"
loops WATCH_COMES_UP_IN_SILENCE $m "$one"
loops RELIES_ON_EVENTS_WHILE_BUSY $m "-DIN_TURN -DKILLS=1"
m=barrier
pair="-DCLIENTS=2"
# Clients that wait for a third one, which never comes.
few="-DCLIENTS=2 -DPARTIES=3 -DKILLS=1"
limited="$pair -DTIMED=1 -DRESETS"
crowd="-DCLIENTS=3 -DPARTIES=1"
holds "two participants, two rounds" $m "$pair -DROUNDS=2" -E
holds "three callers, two participants, a deadline" $m "-DCLIENTS=3 -DTIMED=1" -E
holds "three callers, one participant" $m "$crowd" -E
holds "one process dies at any moment" $m "$pair -DKILLS=1" -E
holds "the same, of two that wait for a third" $m "$few" -E
holds "the same, with an action" $m "$pair -DACTION=1 -DKILLS=1" -E
holds "a deadline, a reset, two rounds" $m "$limited -DROUNDS=2" -E
holds "a deadline, a reset, an action" $m "$limited -DACTION=1" -E
breaks DEATH_IS_SILENT $m "$few" -E
breaks NO_CHECK_AFTER_CLOSE $m "$few" -E
breaks COUNTS_THE_DEAD $m "$pair -DKILLS=1" -E
breaks TAKES_OVER_A_DEAD_MARK $m "$pair -DKILLS=1" -E
breaks WITHOUT_COMPARING $m "$pair -DTIMED=1" -E
breaks RELEASES_WITHOUT_COMPARING $m "$pair -DTIMED=1" -E
breaks UNLOCKS_WITHOUT_BREAKING $m "$pair -DTIMED=1" -E
breaks RELEASE_IN_SILENCE $m "$pair" -E
breaks FORGETS_EVENTS $m "$pair" -E
breaks WATCH_BEGINS_IN_SILENCE $m "$pair" -E
breaks LEAVES_IN_SILENCE $m "$crowd" -E
breaks CHECKS_BEFORE_WANTED $m "$crowd" -E
breaks RESET_LOOKS_LIKE_RELEASE $m "$limited" -E
breaks RESET_IS_NOT_RECORDED $m "$limited" -E

wait
echo
failures=$(find "$all" -name failed | wc -l)
if [ "$failures" -gt 0 ] || [ "$runs" = 0 ]; then
    echo "models: $failures of $runs searches failed"
    exit 1
fi
[ -n "$pattern" ] || sums > $checked
echo "models: all $runs searches passed"
