#!/usr/bin/env bash
# A cluster under load and chance faults, then the judge: scripts/chaos.sh [MINUTES [SEED]]
#
# Without a seed one is drawn; it is printed, and chooses load and faults. Needs an engine that
# answers; with-docker.sh sees to that. Ends with an error when a promise was broken.
set -euo pipefail
here="$(dirname "$0")"
# shellcheck source=scripts/prelude.sh
. "$here/prelude.sh"
trap 'failed_line $LINENO "$BASH_COMMAND"' ERR

"$here/ensure-rust.sh"
apt_install busybox-static
cd "$ROOT"
export CLOUDAI_CHAOS_MINUTES="${1:-10}" CLOUDAI_CHAOS_SEED="${2:-}"
cargo test --locked --package cloudai-e2e --test c_chaos -- --nocapture
