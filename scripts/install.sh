#!/usr/bin/env bash
# Builds CloudAI and puts it into PREFIX/bin (default /usr/local, or ~/.local without root):
# cloudai, and master-node and worker-node, which are links to it.
#
# With --link-only DIR, only makes the two links beside DIR/cloudai.
set -euo pipefail
here="$(dirname "$0")"
# shellcheck source=scripts/prelude.sh
. "$here/prelude.sh"
trap 'failed_line $LINENO "$BASH_COMMAND"' ERR

link_roles() {
    ln -sf cloudai "$1/master-node"
    ln -sf cloudai "$1/worker-node"
}

if [ "${1:-}" = --link-only ]; then
    link_roles "$2"
    exit 0
fi
"$here/ensure-rust.sh"
cd "$ROOT"
cargo build --release --locked --package cloudai
if [ "$(id -u)" = 0 ]; then prefix=/usr/local; else prefix="$HOME/.local"; fi
bin="${PREFIX:-$prefix}/bin"
mkdir -p "$bin"
install -m 755 target/release/cloudai "$bin/cloudai"
link_roles "$bin"
say "installed cloudai, master-node and worker-node in $bin"
case ":$PATH:" in
*":$bin:"*) ;;
*) warn "$bin is not on your PATH" ;;
esac
