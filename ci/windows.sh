#!/usr/bin/env bash
# Runs the tests as Windows programs under Wine, where the tools for that are set up (see
# docs/PLATFORMS.md); says so where they are not.
set -euo pipefail
cd "$(dirname "$0")/.."
runner=${CROSSCHECK:-../shared/crosscheck}/run-windows-tests.sh
if [ -x "$runner" ] && [ -e "${CROSSCHECK_HOME:-$HOME/.cache/crosscheck}/env.sh" ]; then
    printf '\n== Windows, under Wine\n'
    ci/limited.sh 1200 "$runner" . --locked --features cli
else
    printf '\n== Windows: left out, the Wine tools are not set up here\n'
fi
