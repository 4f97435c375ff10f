#!/usr/bin/env bash
# From a clone to a finished task in one command: installs what is missing, builds, starts a master
# and a local worker, runs the sample task and shows its log and result. See --help.
set -Eeuo pipefail
cd "$(dirname "$0")"
# shellcheck source=scripts/prelude.sh
. scripts/prelude.sh

START_SECONDS_MAX=60
STOP_SECONDS_MAX=60

usage() {
    cat <<'END'
Usage: ./launch.sh [OPTION]...

Installs what is missing, builds CloudAI, starts a master and a local worker in the background,
runs the sample task, and shows its log and its result. A master that is already up is used.

  --interactive     a menu instead of the sample task
  --stop            stop what was started here: master, worker and, if it was ours, the engine
  --data-dir DIR    where everything is kept (default: $CLOUDAI_DATA, else /var/lib/cloudai for
                    root, else $XDG_DATA_HOME/cloudai)
  --profile NAME    build in this cargo profile: release (default) or dev
  --help            this text

Environment: CLOUDAI_DATA, CLOUDAI_HTTP_PORT (8080), CLOUDAI_GRPC_PORT (50051),
CLOUDAI_WORKER_PORT (50052).
END
}

# ---- Words of the command line ----

words=("$@")
action=demo
profile=release
default_data=/var/lib/cloudai
[ "$(id -u)" = 0 ] || default_data="${XDG_DATA_HOME:-$HOME/.local/share}/cloudai"
data="${CLOUDAI_DATA:-$default_data}"
while [ $# -gt 0 ]; do
    case "$1" in
    --interactive) action=menu ;;
    --stop) action=stop ;;
    --data-dir | --profile)
        [ $# -ge 2 ] || fail "$1 needs a value: see ./launch.sh --help"
        if [ "$1" = --data-dir ]; then data="$2"; else profile="$2"; fi
        shift
        ;;
    --help | -h) usage && exit 0 ;;
    *) fail "unknown option '$1': see ./launch.sh --help" ;;
    esac
    shift
done
[ "$action" != stop ] || [ -d "$data" ] || fail "there is no data directory $data"
mkdir -p "$data" || fail "cannot make the data directory $data: choose another with --data-dir"
data="$(cd "$data" && pwd)"
export CLOUDAI_DATA="$data"
export CLOUDAI_URL="http://127.0.0.1:${CLOUDAI_HTTP_PORT:-8080}"
# Beside the data, so that two data directories never mix up their processes.
log="$data/launch.log"
pid_file="$data/launch.pid"

# ---- Errors ----

started_now=
on_error() {
    local line=$1 command=$2
    trap - ERR
    printf 'error: launch.sh, line %s: failed: %s\n' "$line" "$command" >&2
    show_log_tail
    exit 1
}
# Only of a log that this run began: an older one would mislead.
show_log_tail() {
    [ -n "$started_now" ] && [ -s "$log" ] || return 0
    printf 'The end of %s:\n' "$log" >&2
    tail -n 20 "$log" | sed 's/^/    /' >&2
}
trap 'on_error $LINENO "$BASH_COMMAND"' ERR

# ---- Steps ----

# Whether what the pid file names still runs; sets `pid`.
is_ours_running() {
    local start
    [ -s "$pid_file" ] || return 1
    read -r pid start <"$pid_file"
    [ "$(process_start "$pid")" = "$start" ]
}

build() {
    say "building CloudAI (profile $profile; the first time takes some minutes)"
    cloudai="$(scripts/build.sh "$profile")"
}

is_master_up() { "$cloudai" status >/dev/null 2>&1; }

is_worker_up() {
    local workers
    workers="$("$cloudai" workers --json 2>/dev/null)" || return 1
    [[ "$workers" =~ \"status\":\ ?\"active\" ]]
}

start() {
    if is_master_up; then
        say "a master answers at $CLOUDAI_URL: using it"
    else
        say "starting a master and a local worker (data: $data, log: $log)"
        started_now=yes
        setsid "$cloudai" up --no-repl >"$log" 2>&1 </dev/null &
        echo "$! $(process_start $!)" >"$pid_file"
    fi
    local end=$((SECONDS + START_SECONDS_MAX))
    until is_master_up && is_worker_up; do
        if [ -n "$started_now" ] && ! is_ours_running; then
            rm -f "$pid_file"
            show_log_tail
            fail "CloudAI ended while it started: the lines above say why"
        fi
        if [ "$SECONDS" -ge "$end" ]; then
            show_log_tail
            fail "no worker is ready after $START_SECONDS_MAX s: see '$cloudai workers'"
        fi
        sleep 0.2
    done
}

run_sample() {
    local name=sample task
    say "running the sample task"
    "$cloudai" run --name "$name" cloudai/sample-task:latest
    # Newest first: the one that has just ended.
    task="$("$cloudai" tasks --name "$name" --limit 1 --json | grep -o 'task-[0-9]*' | head -n 1)"
    say "$task left these files in /output:"
    "$cloudai" files "$task"
    say "and this is result.json:"
    "$cloudai" files "$task" result.json
}

say_how_to_go_on() {
    local short="${cloudai#"$ROOT"/}"
    line() { printf '  %-52s %s\n' "$1" "$2"; }
    {
        printf '\nCloudAI runs in the background: master at %s, data in %s.\n\n' \
            "$CLOUDAI_URL" "$data"
        line "$short run cloudai/sample-task" 'the same task again, by hand'
        line "$short run IMAGE COMMAND..." 'any image that is here or can be pulled'
        line "$short tasks" 'what ran and what runs'
        line "$short workers" 'the machines'
        line "$short --help" 'everything else'
        line './launch.sh --stop' 'stop it; nothing that was accepted is lost'
        if [ -n "${CLOUDAI_HTTP_PORT:-}" ]; then
            printf '\nIn other terminals: export CLOUDAI_URL=%s\n' "$CLOUDAI_URL"
        fi
    } >&2
}

stop() {
    if is_ours_running; then
        say "stopping CloudAI (pid $pid)"
        kill -TERM "$pid"
        is_gone() { ! is_ours_running; }
        wait_for "$STOP_SECONDS_MAX" is_gone ||
            fail "CloudAI (pid $pid) has not ended within $STOP_SECONDS_MAX s: see $log"
    else
        say "nothing that was started with this data directory runs ($data)"
    fi
    rm -f "$pid_file"
    scripts/stop-docker.sh
}

menu() {
    local choice word
    while true; do
        cat >&2 <<'END'

  1  status       2  workers      3  tasks
  4  run the sample task          5  run an image
  6  log of a task                7  why a task does not run
  8  stop CloudAI and leave       q  leave; CloudAI goes on
END
        read -rp 'choice: ' choice || return 0
        # A command that fails has said why: the menu goes on.
        case "$choice" in
        1) "$cloudai" status || true ;;
        2) "$cloudai" workers || true ;;
        3) "$cloudai" tasks || true ;;
        4) { scripts/sample-image.sh && "$cloudai" run cloudai/sample-task:latest; } || true ;;
        5)
            read -rp 'image and command: ' -a word || return 0
            [ "${#word[@]}" = 0 ] || "$cloudai" run "${word[@]}" || true
            ;;
        6) read -rp 'task: ' word && { "$cloudai" logs --follow "$word" || true; } ;;
        7) read -rp 'task: ' word && { "$cloudai" explain "$word" || true; } ;;
        8) stop && return 0 ;;
        q) return 0 ;;
        *) warn "'$choice' is none of 1 to 8 or q" ;;
        esac
    done
}

case "$action" in
stop) stop ;;
demo)
    scripts/ensure-rust.sh
    ensure_docker "$ROOT/launch.sh" "${words[@]}"
    build
    scripts/sample-image.sh
    start
    run_sample
    say_how_to_go_on
    ;;
menu)
    scripts/ensure-rust.sh
    ensure_docker "$ROOT/launch.sh" "${words[@]}"
    build
    start
    menu
    ;;
esac
