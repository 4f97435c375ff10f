#!/usr/bin/env bash
# Ends the Docker engine that ensure-docker.sh started, and no other.
set -euo pipefail
# shellcheck source=scripts/prelude.sh
. "$(dirname "$0")/prelude.sh"

PID_FILE="$RUN_DIR/dockerd.pid"
STOP_SECONDS_MAX=60

[ -s "$PID_FILE" ] || exit 0
read -r pid start <"$PID_FILE"
if [ "$(process_start "$pid")" != "$start" ]; then
    # It ended by itself; the number may be another process by now.
    rm -f "$PID_FILE"
    exit 0
fi
say "stopping the Docker engine that was started here (pid $pid)"
# Through a shell: where the package procps is missing, kill is only a word of the shell.
# shellcheck disable=SC2016 # expanded by the inner shell
as_root sh -c 'kill -TERM "$1"' sh "$pid"
is_gone() { [ "$(process_start "$pid")" != "$start" ]; }
wait_for "$STOP_SECONDS_MAX" is_gone ||
    fail "dockerd (pid $pid) has not ended within $STOP_SECONDS_MAX s: see $RUN_DIR/dockerd.log"
rm -f "$PID_FILE"
