#!/usr/bin/env bash
# ci/assets.sh DIR: builds the command for a release and writes it, its manual pages, and its
# completions for each shell to DIR, as packages install them:
#   DIR/bin DIR/share/man/man1 DIR/share/bash-completion/completions
#   DIR/share/zsh/site-functions DIR/share/fish/vendor_completions.d
set -euo pipefail
[ $# = 1 ] || { echo "usage: ci/assets.sh DIR" >&2; exit 64; }
mkdir -p "$1"
directory=$(cd "$1" && pwd)
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-$PWD/target}
cargo build --locked --release --features cli --bin flockwork
built=$target/release/flockwork
[ -e "$built" ] || built=$built.exe
share=$directory/share
mkdir -p "$directory/bin" "$share/man/man1" "$share/bash-completion/completions" \
    "$share/zsh/site-functions" "$share/fish/vendor_completions.d"
cp "$built" "$directory/bin"
"$built" man --install "$share/man/man1"
"$built" completions bash > "$share/bash-completion/completions/flockwork"
"$built" completions zsh > "$share/zsh/site-functions/_flockwork"
"$built" completions fish > "$share/fish/vendor_completions.d/flockwork.fish"
