#!/usr/bin/env bash
# Installs what is missing to build, run and test CloudAI; does nothing when all is there.
set -euo pipefail
here="$(dirname "$0")"
# shellcheck source=scripts/prelude.sh
. "$here/prelude.sh"
trap 'failed_line $LINENO "$BASH_COMMAND"' ERR

"$here/ensure-rust.sh"
"$here/ensure-docker.sh"
# The images of the tests are made from it, without a registry.
apt_install busybox-static
say "everything is there: try ./launch.sh, or make help"
