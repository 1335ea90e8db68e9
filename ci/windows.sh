#!/usr/bin/env bash
# ci/windows.sh: runs the tests as Windows programs under Wine (see docs/PLATFORMS.md). If the tools
# for that are not set up, it prints a line and exits with 0.
set -euo pipefail
cd "$(dirname "$0")/.."
runner=${CROSSCHECK:-../shared/crosscheck}/run-windows-tests.sh
if [ -x "$runner" ] && [ -e "${CROSSCHECK_HOME:-$HOME/.cache/crosscheck}/env.sh" ]; then
    printf '\n== Windows, under Wine\n'
    ci/limited.sh 1200 "$runner" . --locked --features cli
else
    printf '\n== Windows: left out, the Wine tools are not set up\n'
fi
