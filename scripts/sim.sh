#!/usr/bin/env bash
# Simulates faults: scripts/sim.sh [ARGUMENT…]; arguments go to the simulator.
#
# Without any: 1,000 new seeds, then every planted bug, as CI has it. The first number that is
# printed repeats everything.
set -euo pipefail
here="$(dirname "$0")"
# shellcheck source=scripts/prelude.sh
. "$here/prelude.sh"
trap 'failed_line $LINENO "$BASH_COMMAND"' ERR

"$here/ensure-rust.sh"
cd "$ROOT"
cargo build --release --locked --package cloudai-sim
simulator="${CARGO_TARGET_DIR:-$ROOT/target}/release/cloudai-sim"
if [ "$#" -gt 0 ]; then
    exec "$simulator" "$@"
fi
"$simulator" --runs 1000
"$simulator" --runs 2000 --planted
