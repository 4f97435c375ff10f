#!/usr/bin/env bash
# Runs a command with a Docker engine: scripts/with-docker.sh COMMAND [ARGUMENT…]
#
# When no engine answers, one is started and ended again with the command. An engine that answers
# already is used and left alone. The exit code is the command's.
set -euo pipefail
here="$(dirname "$0")"
# shellcheck source=scripts/prelude.sh
. "$here/prelude.sh"

[ $# -gt 0 ] || fail "usage: $0 COMMAND [ARGUMENT…]"
# Set when this script runs anew in the group 'docker': the engine is still its own to end.
if [ -n "${WITH_DOCKER_ENDS:-}" ] || ! docker_answers; then
    export WITH_DOCKER_ENDS=yes
    trap '"$here/stop-docker.sh"' EXIT
    ensure_docker "$ROOT/scripts/with-docker.sh" "$@"
    unset WITH_DOCKER_ENDS
fi
"$@"
