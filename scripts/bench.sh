#!/usr/bin/env bash
# Measures: scripts/with-docker.sh scripts/bench.sh [ARGUMENT…]
#
# Arguments go to the load generator; --help lists its scenarios. Figures of one run can be compared
# with each other, never with those of another machine or day.
set -euo pipefail
here="$(dirname "$0")"
# shellcheck source=scripts/prelude.sh
. "$here/prelude.sh"
trap 'failed_line $LINENO "$BASH_COMMAND"' ERR

"$here/ensure-rust.sh"
apt_install busybox-static
"$ROOT/e2e/images/build.sh"
cd "$ROOT"
cargo build --release --locked --package cloudai --package cloudai-bench
cargo run --release --locked --package cloudai-bench -- "$@"
