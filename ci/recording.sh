#!/usr/bin/env bash
# ci/recording.sh: records three terminals as docs/recording.svg, which the README shows. Requires
# tmux and Python 3, whose package termtosvg it installs into a temporary directory.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --locked --quiet --features cli
programs=$(realpath "${CARGO_TARGET_DIR:-target}/debug")

work=$(mktemp -d)
tmux() { command tmux -L flockwork-recording -f /dev/null "$@"; }
trap 'tmux kill-server 2> /dev/null || true; rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" --quiet install termtosvg==1.1.0

# Types a line into a pane and presses Enter.
type_in() {
    local pane=$1 text=$2 i
    for ((i = 0; i < ${#text}; i++)); do
        tmux send-keys -t "demo.$pane" -l "${text:i:1}"
        sleep 0.04
    done
    sleep 0.3
    tmux send-keys -t "demo.$pane" Enter
}

mkdir "$work/demo"
shell="cd $work/demo; PATH=$programs:\$PATH PS1='$ ' exec bash --norc --noprofile"
tmux new-session -d -s demo -x 96 -y 21 "$shell"
tmux set-option -g status off
tmux set-option -g pane-border-status top
tmux set-option -g pane-border-format ' #{pane_title} '
tmux split-window -v -t demo -l 9 "$shell"
tmux split-window -h -t demo.0 "$shell"
tmux select-pane -t demo.0 -T 'terminal 1'
tmux select-pane -t demo.1 -T 'terminal 2'
tmux select-pane -t demo.2 -T 'terminal 3'
tmux set-option -g pane-active-border-style default

demo() {
    sleep 1
    type_in 2 'flockwork status --watch deploy.lock ci'
    sleep 1.5
    type_in 0 'flockwork lock deploy.lock -- sleep 8'
    sleep 1.5
    type_in 1 'flockwork lock deploy.lock -- echo deployed'
    sleep 8
    type_in 0 'flockwork sem -j 2 ci -- sleep 6'
    type_in 1 'flockwork sem -j 2 ci -- sleep 3 &'
    type_in 1 'flockwork sem -v ci -- echo tested'
    sleep 8
    tmux send-keys -t demo.2 C-c
    sleep 1
    tmux kill-server
}
demo &
command="tmux -L flockwork-recording attach -t demo"
record="$work/venv/bin/termtosvg docs/recording.svg -c '$command' -g 96x21 -m 100 -M 3000 -t window_frame"
TERM=xterm-256color script --quiet --return --command "$record" /dev/null < /dev/null > "$work/log"
wait
