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
# The end-to-end tests start the real binary.
cargo build --locked --package cloudai
cargo test --workspace --locked --no-fail-fast "$@"
