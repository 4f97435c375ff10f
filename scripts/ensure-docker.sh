#!/usr/bin/env bash
# Makes sure that a Docker engine answers: installs it, starts it, or says what to do.
#
# An engine that this script started by itself is written down in target/run/dockerd.pid, and
# stop-docker.sh ends only that one. An engine that was there before is never touched.
set -euo pipefail
# shellcheck source=scripts/prelude.sh
. "$(dirname "$0")/prelude.sh"
trap 'failed_line $LINENO "$BASH_COMMAND"' ERR

LOG="$RUN_DIR/dockerd.log"
PID_FILE="$RUN_DIR/dockerd.pid"
START_SECONDS_MAX=60

# Ends the script when an engine is there but does not let this user in. Whoever let the script
# install the engine by sudo becomes a member of its group; else that is the administrator's choice.
refuse_without_permission() {
    local answer user
    answer="$(timeout 10 docker version 2>&1 >/dev/null || true)"
    [[ "$answer" == *"permission denied"* ]] || return 0
    user="$(id -un)"
    if [ -n "$installed" ]; then
        say "adding $user to the group 'docker', which may use the engine"
        as_root usermod -aG docker "$user"
    elif ! id -nG "$user" | grep -qw docker; then
        fail "the Docker engine refuses $user. Run 'sudo usermod -aG docker $user', log in again, \
and repeat (members of the group 'docker' have the rights of root)."
    fi
    say "$user is in the group 'docker', but this session is older than that"
    exit "$NEW_GROUP_CODE"
}

# Whether an engine is up, be this user allowed to use it or not.
answers_root() {
    as_root timeout 10 docker version >/dev/null 2>&1
}

install_engine() {
    apt_install docker.io
    # Newer Debian releases pack the client apart.
    if ! command -v docker >/dev/null; then apt_install docker-cli; fi
    command -v dockerd >/dev/null || fail "docker.io is installed but there is no dockerd"
}

mount_cgroups() {
    mountpoint -q /sys/fs/cgroup && return 0
    apt_install cgroupfs-mount
    as_root cgroupfs-mount
}

start_own_engine() {
    say "starting dockerd (log: $LOG)"
    mkdir -p "$RUN_DIR"
    mount_cgroups
    # shellcheck disable=SC2016 # expanded by the inner shell
    as_root setsid sh -c 'echo $$ >"$1"; exec dockerd' sh "$PID_FILE.new" \
        >"$LOG" 2>&1 </dev/null &
    wait_for 5 test -s "$PID_FILE.new" || fail "dockerd could not be started, see $LOG"
    local pid
    pid=$(cat "$PID_FILE.new")
    rm -f "$PID_FILE.new"
    echo "$pid $(process_start "$pid")" >"$PID_FILE"
    local end=$((SECONDS + START_SECONDS_MAX))
    until answers_root; do
        [ -d "/proc/$pid" ] || { tail -n 15 "$LOG" >&2; fail "dockerd ended, see $LOG"; }
        [ "$SECONDS" -lt "$end" ] || fail "dockerd does not answer, see $LOG"
        sleep 0.2
    done
}

start_service() {
    say "starting the service docker"
    as_root systemctl start docker ||
        fail "the service docker does not start: see 'journalctl -u docker'"
    wait_for 30 answers_root ||
        fail "the service docker runs but does not answer: see 'journalctl -u docker'"
}

installed=
main() {
    if docker_answers; then return 0; fi
    [ -z "${DOCKER_HOST:-}" ] ||
        fail "no engine answers at DOCKER_HOST=$DOCKER_HOST: start it, or unset DOCKER_HOST"
    if command -v docker >/dev/null; then refuse_without_permission; fi
    if ! command -v dockerd >/dev/null || ! command -v docker >/dev/null; then
        install_engine
        installed=yes
        # The package starts its service where there is an init system.
        if [ -d /run/systemd/system ]; then wait_for 10 answers_root || true; fi
    fi
    if docker_answers; then return 0; fi
    can_be_root || fail "no Docker engine answers. Start it as root: systemctl start docker"
    if pidof dockerd >/dev/null; then
        refuse_without_permission
        wait_for 30 answers_root ||
            fail "dockerd runs (pid $(pidof dockerd)) but does not answer: look at its log"
    elif [ -d /run/systemd/system ]; then
        start_service
    else
        start_own_engine
    fi
    refuse_without_permission
}

main
say "Docker engine $(docker version --format '{{.Server.Version}}') answers"
