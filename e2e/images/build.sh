#!/bin/sh
# Makes the images of the tests from files of this machine; no registry is asked.
#
#   cloudai-test/busybox   /bin/busybox with all its applets, runs as root
#   cloudai-test/nonroot   the same, runs as user 1000, and has an /output of that user
#
# Needs a Docker engine that answers, the docker client, tar and busybox-static. Does nothing when
# the images are there and were made from the same busybox by the same script.
set -eu

fail() {
    echo "build.sh: $*" >&2
    exit 1
}

busybox=$(command -v busybox) || fail "no busybox: install the package busybox-static"
command -v docker >/dev/null || fail "no docker client: install the package docker.io"
docker version >/dev/null 2>&1 || fail "no Docker engine answers: start dockerd"
# A dynamically linked busybox cannot run in an image that has no libraries.
if ldd "$busybox" >/dev/null 2>&1; then
    fail "$busybox is dynamically linked: install the package busybox-static"
fi

origin=$(cat "$busybox" "$0" | sha256sum | cut -c1-32)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Test programs of several crates may call this at the same time.
exec 9>"${TMPDIR:-/tmp}/cloudai-test-images.lock"
flock 9

is_fresh() {
    found=$(docker image inspect --format '{{index .Config.Labels "cloudai.test.origin"}}' "$1" \
        2>/dev/null) || return 1
    [ "$found" = "$origin" ]
}

make_root() {
    mkdir -p "$work/bin" "$work/etc" "$work/tmp" "$work/root" "$work/proc" "$work/sys" "$work/dev"
    chmod 1777 "$work/tmp"
    cp "$busybox" "$work/bin/busybox"
    for applet in $("$busybox" --list); do
        [ "$applet" = busybox ] || ln -sf busybox "$work/bin/$applet"
    done
    printf 'root:x:0:0:root:/root:/bin/sh\ntask:x:1000:1000:task:/tmp:/bin/sh\n' >"$work/etc/passwd"
    printf 'root:x:0:\ntask:x:1000:\n' >"$work/etc/group"
}

# import NAME [CHANGE...]: what is in $work becomes the image NAME.
import() {
    name=$1
    shift
    set -- --change 'ENV PATH=/bin' --change 'CMD ["/bin/sh"]' "$@"
    tar -C "$work" --numeric-owner -c . |
        docker import --change "LABEL cloudai.test.origin=$origin" "$@" - "$name" >/dev/null
    echo "made $name" >&2
}

if is_fresh cloudai-test/busybox && is_fresh cloudai-test/nonroot; then
    exit 0
fi
make_root
import cloudai-test/busybox
mkdir "$work/output"
chown 1000:1000 "$work/output" 2>/dev/null || chmod 0777 "$work/output"
import cloudai-test/nonroot --change 'USER 1000'
