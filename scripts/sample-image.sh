#!/usr/bin/env bash
# Builds the sample task's image, `cloudai/sample-task:latest`.
#
# The base is python:3-slim, as everywhere; on a machine that cannot reach a registry it is made
# from local Debian packages (python-base.sh). Nothing is built when nothing has changed.
set -euo pipefail
here="$(dirname "$0")"
# shellcheck source=scripts/prelude.sh
. "$here/prelude.sh"
trap 'failed_line $LINENO "$BASH_COMMAND"' ERR

IMAGE=cloudai/sample-task:latest
REGISTRY_BASE=python:3-slim
LOCAL_BASE=cloudai-python-base
PULL_SECONDS_MAX=120

sources="$(cat "$ROOT/sample_task/Dockerfile" "$ROOT/sample_task/task.py" | sha256sum | cut -c1-16)"
built="$(docker image inspect --format '{{index .Config.Labels "cloudai.sources"}}' "$IMAGE" \
    2>/dev/null || true)"
if [ "$built" = "$sources" ]; then
    say "image $IMAGE is up to date"
    exit 0
fi

pull_base() {
    say "pulling $REGISTRY_BASE"
    timeout "$PULL_SECONDS_MAX" docker pull --quiet "$REGISTRY_BASE" >/dev/null 2>&1
}

base="$REGISTRY_BASE"
if ! image_exists "$REGISTRY_BASE" && { image_exists "$LOCAL_BASE" || ! pull_base; }; then
    say "no image registry can be reached: using $LOCAL_BASE, made from local Debian packages"
    "$here/python-base.sh"
    base="$LOCAL_BASE"
fi

# Clients choose BuildKit by default, which needs its plugin; the classic builder is in each engine.
if ! docker buildx version >/dev/null 2>&1; then export DOCKER_BUILDKIT=0; fi
mkdir -p "$RUN_DIR"
log="$RUN_DIR/sample-image.log"
say "building $IMAGE on $base"
docker build --network none --build-arg "BASE=$base" --label "cloudai.sources=$sources" \
    --tag "$IMAGE" "$ROOT/sample_task" >"$log" 2>&1 ||
    { tail -n 15 "$log" >&2; fail "the image could not be built, see $log"; }
