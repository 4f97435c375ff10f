#!/usr/bin/env bash
# Runs every test of the workspace: scripts/with-docker.sh scripts/test.sh [ARGUMENT…]
#
# Arguments go to `cargo test`. It installs what is missing and makes the images of the tests from
# files of this machine. Needs an engine that answers; with-docker.sh sees to that.
set -euo pipefail
here="$(dirname "$0")"
# shellcheck source=scripts/prelude.sh
. "$here/prelude.sh"
trap 'failed_line $LINENO "$BASH_COMMAND"' ERR

"$here/ensure-rust.sh"
apt_install busybox-static
"$ROOT/e2e/images/build.sh"
"$here/sample-image.sh"
cd "$ROOT"
# The end-to-end tests start the real binary, with the points at which they kill it; with the same
# features everywhere nothing is compiled twice.
cargo build --locked --package cloudai --features failpoints
cargo test --workspace --features cloudai/failpoints --locked --no-fail-fast "$@"
# And as it is shipped: there a point is nothing.
cargo test --package cloudai-failpoint --locked "$@"
