#!/usr/bin/env bash
# Makes sure that the build tools are there: a new enough cargo, and a C compiler and linker.
#
# It never installs a Rust toolchain by itself: that is the user's choice.
set -euo pipefail
# shellcheck source=scripts/prelude.sh
. "$(dirname "$0")/prelude.sh"
trap 'failed_line $LINENO "$BASH_COMMAND"' ERR

want="$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml")"
command -v cargo >/dev/null || fail "cargo is not on the PATH. Install Rust $want or newer \
with rustup ('rustup toolchain install $want' where it is already there), then open a new shell."
have="$(cargo --version | cut -d' ' -f2)"
oldest="$(printf '%s\n' "$want" "${have%%-*}" | sort -V | head -n 1)"
[ "$oldest" = "$want" ] ||
    fail "cargo $have is too old: CloudAI needs $want or newer. Run 'rustup update'."
# SQLite is compiled from its C source.
command -v cc >/dev/null || apt_install gcc libc6-dev
