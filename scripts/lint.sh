#!/usr/bin/env bash
# Every check that runs no test: format, generated code, rules of the house, clippy, no `ring`.
set -euo pipefail
here="$(dirname "$0")"
# shellcheck source=scripts/prelude.sh
. "$here/prelude.sh"
trap 'failed_line $LINENO "$BASH_COMMAND"' ERR

"$here/ensure-rust.sh"
cd "$ROOT"
for part in fmt clippy; do
    cargo "$part" --version >/dev/null 2>&1 ||
        fail "cargo $part is missing: run 'rustup component add rustfmt clippy'"
done

say "format"
cargo fmt --all --check
say "generated code"
cargo xtask codegen --check
say "rules of the house"
cargo xtask tidy
say "clippy"
cargo clippy --workspace --all-targets --locked -- -D warnings
say "one TLS provider"
tree="$(cargo tree --workspace --locked --target all --prefix none --format '{p}')"
! grep -E '^ring ' <<<"$tree" || fail "ring is in the dependency tree: see deny.toml"
say "scripts"
for script in launch.sh .ci/run scripts/*.sh; do bash -n "$script"; done
if command -v shellcheck >/dev/null; then
    shellcheck --external-sources launch.sh .ci/run scripts/*.sh
fi
