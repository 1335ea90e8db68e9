#!/usr/bin/env bash
# ci/shared-fs.sh ENGINE: tests locks between two hosts (docs/DISTRIBUTED.md) on a network file
# system that it starts on this machine: nfs, gluster, gluster-asis or moosefs. If that is not
# possible here, it prints a line and exits with 0. TRIALS is the number of times that a host is cut
# off (2 if it is not set); MooseFS takes 80 seconds for each.
set -euo pipefail
cd "$(dirname "$0")/.."
engine=${1:?the engine: nfs, gluster, gluster-asis or moosefs}
trials=${TRIALS:-2}
shared=${SHAREDFS:-../shared/sharedfs}

skip() {
    printf '\n== %s: left out, %s\n' "$engine" "$1"
    exit 0
}

case $engine in
    nfs | gluster | gluster-asis) lease=10 ;;
    moosefs) lease=60 ;; # it accepts no less
    *)
        printf 'unknown engine: %s (nfs, gluster, gluster-asis or moosefs)\n' "$engine" >&2
        exit 64
        ;;
esac
[ "$(uname)" = Linux ] || skip "the file systems are started on Linux only"
[ "$(id -u)" = 0 ] || skip "starting a file system needs root"
[ -x "$shared/up.sh" ] || skip "the scripts that start the file systems are not here"
shared=$(cd "$shared" && pwd)

printf '\n== %s, between two hosts\n' "$engine"
cargo test --locked --features cli --test it --no-run
work=$(mktemp -d)
export SHFS_TAG=fw$$ SHFS_STATE=$work/state SHFS_DEAD=$lease
end() {
    umount -l "$work/unlocked" 2> /dev/null || true
    "$shared/down.sh" > "$work/down.log" 2>&1 || cat "$work/down.log"
    rm -rf "$work"
}
trap end EXIT
mkdir "$work/a" "$work/b" "$work/unlocked"
if ! "$shared/up.sh" "$engine" "$work/a" "$work/b" > "$work/up.log" 2>&1; then
    cat "$work/up.log"
    skip "its server or its clients do not start here"
fi

# Exclusion, kills, records, files that are replaced, and what a host learns that was cut off.
FLOCKWORK_HOSTS="$shared/ctl.sh $work/a $work/b $trials" \
    ci/limited.sh $((600 + trials * 150)) \
    cargo test --locked --features cli --test it -- between_hosts --nocapture --test-threads=1

# A mount whose locks exclude no other host is refused.
case $engine in
    moosefs)
        nsenter --net="/run/netns/$SHFS_TAG-b" \
            mfsmount -H 10.213.7.1 -o mfsproxy=127.0.0.1 -o mfsnobsdlocks "$work/unlocked"
        if target/debug/flockwork lock "$work/unlocked/refused.lock" true 2> "$work/error"; then
            printf 'a mount without locks was not refused\n' >&2
            exit 1
        fi
        grep -q 'exclude no other host' "$work/error" || { cat "$work/error"; exit 1; }
        target/debug/flockwork lock "$work/b/refused.lock" true
        printf 'a mount without locks is refused: %s\n' "$(head -1 "$work/error")"
        ;;
    *) printf 'mounts that exclude no other host: left out, %s has no such mount here\n' "$engine" ;;
esac
