# shellcheck shell=bash
# What the scripts share: how they speak, and how they install what is missing.
#
# Sourced, never run. It starts nothing, ends nothing and changes nothing by being read.
# Read next: ensure-docker.sh (the engine) and ../launch.sh (the whole way).

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
# What belongs to this checkout and may be thrown away: logs, pid files, downloads.
RUN_DIR="$ROOT/target/run"
# shellcheck disable=SC2034 # used by those who source this
CACHE_DIR="$ROOT/target/cache"

# ensure-docker.sh ends with it when only the process's groups are too old to reach the engine.
NEW_GROUP_CODE=75

# Messages go to stderr: stdout is for data.
say() { printf '==> %s\n' "$*" >&2; }
warn() { printf 'warning: %s\n' "$*" >&2; }
fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# The command line that failed, for `trap 'failed_line $LINENO "$BASH_COMMAND"' ERR`.
failed_line() { printf 'error: %s, line %s: failed: %s\n' "$(basename "$0")" "$1" "$2" >&2; }

# Whether a command can be run as root without hanging on a question that nobody sees.
can_be_root() {
    [ "$(id -u)" = 0 ] && return 0
    command -v sudo >/dev/null || return 1
    sudo -n true 2>/dev/null || [ -t 0 ]
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

is_installed() {
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# Installs the Debian packages that are missing; reads the package lists anew only when it must.
apt_install() {
    local missing=() package log="$RUN_DIR/apt.log"
    for package in "$@"; do
        is_installed "$package" || missing+=("$package")
    done
    [ "${#missing[@]}" = 0 ] && return 0
    command -v apt-get >/dev/null ||
        fail "this machine has no apt-get: install these with its own package manager: ${missing[*]}"
    can_be_root ||
        fail "missing: ${missing[*]}. Run as root: apt-get install ${missing[*]}"
    say "installing ${missing[*]}"
    mkdir -p "$RUN_DIR"
    local install=(env DEBIAN_FRONTEND=noninteractive apt-get install -y
        --no-install-recommends -o DPkg::Lock::Timeout=300 "${missing[@]}")
    as_root "${install[@]}" >"$log" 2>&1 </dev/null && return 0
    as_root apt-get update -o DPkg::Lock::Timeout=300 >>"$log" 2>&1 </dev/null ||
        warn "apt-get update failed, see $log"
    as_root "${install[@]}" >>"$log" 2>&1 </dev/null && return 0
    tail -n 15 "$log" >&2
    fail "could not install ${missing[*]}: the lines above are the end of $log"
}

docker_answers() {
    timeout 10 docker version --format '{{.Server.Version}}' >/dev/null 2>&1
}

# Sees to an engine, then returns; `ensure_docker SCRIPT [ARGUMENT…]`: runs that anew, in place of
# this process, when its user has just become a member of the group 'docker'.
ensure_docker() {
    local code=0
    "$ROOT/scripts/ensure-docker.sh" || code=$?
    [ "$code" != 0 ] || return 0
    [ "$code" = "$NEW_GROUP_CODE" ] || exit "$code"
    exec sg docker -c "$(printf '%q ' "$@")"
}

image_exists() {
    docker image inspect "$1" >/dev/null 2>&1
}

# Runs `check` up to every 0.2 s until it succeeds; fails after that many seconds.
wait_for() {
    local seconds=$1
    shift
    local end=$((SECONDS + seconds))
    until "$@"; do
        [ "$SECONDS" -lt "$end" ] || return 1
        sleep 0.2
    done
}

# When a process began, in clock ticks since the boot: with its number it names one process for ever.
process_start() {
    # The name in field 2 may hold blanks: what counts begins after its closing bracket.
    sed 's/^.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20
}
