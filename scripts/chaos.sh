#!/usr/bin/env bash
# A cluster under load and chance faults, then the judge: scripts/chaos.sh [MINUTES [SEED]]
#
# Without a seed one is drawn; it is printed, and chooses load and faults. Needs an engine that
# answers; with-docker.sh sees to that. Ends with an error when a promise was broken. Ctrl-C ends it
# and all that it started.
set -euo pipefail
here="$(dirname "$0")"
# shellcheck source=scripts/prelude.sh
. "$here/prelude.sh"
trap 'failed_line $LINENO "$BASH_COMMAND"' ERR

"$here/ensure-rust.sh"
apt_install busybox-static
cd "$ROOT"
export CLOUDAI_CHAOS_MINUTES="${1:-10}" CLOUDAI_CHAOS_SEED="${2:-}"
[[ "$CLOUDAI_CHAOS_MINUTES" =~ ^[1-9][0-9]{0,4}$ ]] ||
    fail "MINUTES=$CLOUDAI_CHAOS_MINUTES: give whole minutes, for example MINUTES=10"
[[ "$CLOUDAI_CHAOS_SEED" =~ ^[0-9]{0,19}$ ]] ||
    fail "SEED=$CLOUDAI_CHAOS_SEED: give the number that an earlier run printed, or none"
# Not under cargo: it would be gone at a Ctrl-C before the run has tidied up.
build=(cargo test --locked --package cloudai-e2e --test c_chaos --no-run)
"${build[@]}"
program="$("${build[@]}" --message-format json 2>/dev/null |
    sed -n 's/.*"executable":"\([^"]*\/c_chaos-[^"]*\)".*/\1/p' | tail -n 1)"
[ -x "$program" ] || fail "cargo did not say where it put the program"
export RUST_BACKTRACE="${RUST_BACKTRACE:-0}"
CARGO="$(command -v cargo)" exec "$program" --exact c_chaos_every_promise_is_kept --nocapture
