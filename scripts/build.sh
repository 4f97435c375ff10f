#!/usr/bin/env bash
# Builds the binary: scripts/build.sh [PROFILE], by default release. Prints its path.
set -euo pipefail
here="$(dirname "$0")"
# shellcheck source=scripts/prelude.sh
. "$here/prelude.sh"
trap 'failed_line $LINENO "$BASH_COMMAND"' ERR

profile="${1:-release}"
"$here/ensure-rust.sh"
cd "$ROOT"
cargo build --profile "$profile" --locked --package cloudai
folder="${CARGO_TARGET_DIR:-$ROOT/target}/$profile"
# Cargo calls the folder of the profile `dev` debug.
[ "$profile" != dev ] || folder="${CARGO_TARGET_DIR:-$ROOT/target}/debug"
"$here/install.sh" --link-only "$folder"
echo "$folder/cloudai"
