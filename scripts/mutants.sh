#!/usr/bin/env bash
# Changes the pure cores one place at a time and demands that a test notices: scripts/mutants.sh [all]
#
# Without a word: the fence, the leases, the commit and the capacity; a mutant that survives there is
# an error. `all`: every file of both cores; docs/mutation.md has a word on each survivor. Every
# mutant is built and tested, so this takes an hour or more; the checkout itself is not touched.
set -euo pipefail
here="$(dirname "$0")"
# shellcheck source=scripts/prelude.sh
. "$here/prelude.sh"
trap 'failed_line $LINENO "$BASH_COMMAND"' ERR

"$here/ensure-rust.sh"
cargo mutants --version >/dev/null 2>&1 ||
    fail "cargo-mutants is missing: install it with 'cargo install --locked cargo-mutants'"
cd "$ROOT"
core=crates/master-core/src worker=crates/worker-core/src
files=()
if [ "${1:-}" != all ]; then
    for file in $core/steps/{report,tick,place,hello}.rs $core/{batch,facts}.rs \
        $worker/{lease,ledger}.rs; do
        [ -f "$file" ] || fail "$file is gone: bring this list up to date"
        files+=(--file "$file")
    done
fi
mkdir -p "$RUN_DIR"
# The walk by chance is left out: what it happens to find is no proof.
cargo mutants --package cloudai-master-core --package cloudai-worker-core "${files[@]}" \
    --jobs 1 --timeout 120 --output "$RUN_DIR" -- --lib -- --skip chaos
