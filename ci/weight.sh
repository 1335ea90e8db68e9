#!/usr/bin/env bash
# ci/weight.sh [--check] [PROGRAM]...: builds small programs that lock one file, each with another
# library and in a separate directory, and prints what the library costs: crates, seconds of CPU for
# a release build without a cache, and kB of binary, as it is built and stripped, beyond the same
# program with `std::fs::File::lock`. CPU times on a busy machine are too long, so each is also
# given as a ratio to fs4's in the same run. The programs are std, fs4, flockwork (without default
# features), size (the same, with `opt-level = "s"` for flockwork), watch (with default features)
# and wait (without them, and with each kind of wait for a lock).
#
# With --check the script fails if flockwork has become heavier: more crates or kB than the limits
# below, which have little room.
set -euo pipefail
cd "$(dirname "$0")/.."
MAX_CRATES=19 MAX_KB=400
check=0
if [ "${1-}" = --check ]; then check=1; shift; fi
[ $# -gt 0 ] || set -- fs4 flockwork size watch wait
project=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export CARGO_INCREMENTAL=0
unset CARGO_TARGET_DIR RUSTFLAGS

# program_source PROGRAM: prints the program.
program_source() {
    case $1 in
    std) echo 'fn main() -> std::io::Result<()> {
            let file = std::fs::File::options().append(true).create(true).open("a.lock")?;
            file.lock()?;
            println!("locked");
            file.unlock()
        }' ;;
    fs4) echo 'fn main() -> std::io::Result<()> {
            let file = std::fs::File::options().append(true).create(true).open("a.lock")?;
            fs4::FileExt::lock(&file)?;
            println!("locked");
            fs4::FileExt::unlock(&file)
        }' ;;
    flockwork | size | watch) echo 'fn main() -> flockwork::Result<()> {
            let lock = flockwork::Lock::open("a.lock")?;
            let guard = lock.lock()?;
            println!("locked");
            guard.unlock()
        }' ;;
    wait) echo 'fn main() -> flockwork::Result<()> {
            let lock = flockwork::Lock::open("a.lock")?;
            drop(lock.try_lock()?);
            drop(lock.lock_timeout(std::time::Duration::from_secs(1))?);
            let _future = lock.lock_async();
            let guard = lock.lock()?;
            println!("locked");
            guard.unlock()
        }' ;;
    esac
}

dependency() {
    case $1 in
    std) ;;
    fs4) echo 'fs4 = { version = "1.1", default-features = false, features = ["sync"] }' ;;
    flockwork | size | wait) echo "flockwork = { path = \"$project\", default-features = false }" ;;
    watch) echo "flockwork = { path = \"$project\" }" ;;
    esac
}

# build PROGRAM: builds it, and sets `crates`, `cpu`, `plain` and `stripped` (sizes in bytes).
build() {
    mkdir -p "$work/$1/src"
    program_source "$1" > "$work/$1/src/main.rs"
    printf '[package]\nname = "program"\nedition = "2024"\n[dependencies]\n%s\n[workspace]\n' \
        "$(dependency "$1")" > "$work/$1/Cargo.toml"
    if [ "$1" = size ]; then
        printf '[profile.release.package.flockwork]\nopt-level = "s"\n' >> "$work/$1/Cargo.toml"
    fi
    cp Cargo.lock "$work/$1"
    cd "$work/$1"
    cargo fetch --quiet
    local all
    # Without the program itself.
    all=$(cargo tree --edges normal,build --prefix none --no-dedupe | sed 's/ (.*//' | sort -u | wc -l)
    crates=$((all - 1))
    TIMEFORMAT='%U %S'
    cpu=$({ time cargo build --release --quiet 2> "$work/errors" || { cat "$work/errors" >&3; exit 1; }; } 3>&2 2>&1)
    cpu=$(awk '{ printf "%.1f", $1 + $2 }' <<< "$cpu")
    plain=$(stat -c %s target/release/program)
    strip -o stripped target/release/program
    stripped=$(stat -c %s stripped)
    rm -rf target
    cd "$project"
}

build std
std_plain=$plain std_stripped=$stripped
if [[ " $* " == *" fs4 "* ]]; then
    build fs4
    fs4=$cpu fs4_line=("$crates" "$cpu" "$plain" "$stripped")
fi
printf '%-10s %7s %7s %8s %6s %12s\n' program crates "CPU s" "x fs4's" kB "stripped kB"
failed=0
for program; do
    case $program in
    std) continue ;;
    fs4) crates=${fs4_line[0]} cpu=${fs4_line[1]} plain=${fs4_line[2]} stripped=${fs4_line[3]} ;;
    *) build "$program" ;;
    esac
    ratio=$(awk -v cpu="$cpu" -v fs4="${fs4:-0}" 'BEGIN { if (fs4 > 0) printf "%.2f", cpu / fs4; else print "?" }')
    more=$(((stripped - std_stripped + 500) / 1000))
    printf '%-10s %7s %7s %8s %6s %12s\n' "$program" "$crates" "$cpu" "$ratio" \
        $(((plain - std_plain + 500) / 1000)) "$more"
    if [ $check = 1 ] && [ "$program" = flockwork ]; then
        [ "$crates" -le $MAX_CRATES ] || { echo "more than $MAX_CRATES crates"; failed=1; }
        [ "$more" -le $MAX_KB ] || { echo "more than $MAX_KB kB"; failed=1; }
    fi
done
exit $failed
