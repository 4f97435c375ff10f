#!/usr/bin/env bash
# Makes the image `cloudai-python-base` (python3 and /bin/sh) from Debian packages.
#
# For machines that cannot reach an image registry: the packages come from the machine's own
# Debian mirror. They are unpacked, not installed, so the machine itself is not changed.
set -euo pipefail
# shellcheck source=scripts/prelude.sh
. "$(dirname "$0")/prelude.sh"
trap 'failed_line $LINENO "$BASH_COMMAND"' ERR

IMAGE=cloudai-python-base
DEBS="$CACHE_DIR/python-base"

if image_exists "$IMAGE"; then
    say "image $IMAGE is there"
    exit 0
fi
for tool in apt-get apt-cache dpkg-deb tar; do
    command -v "$tool" >/dev/null ||
        fail "$tool is missing: $IMAGE is made from Debian packages, on Debian or Ubuntu only"
done

# The names that apt can install, one a line: libraries are renamed between releases.
known_packages() {
    apt-cache policy python3-minimal libssl3t64 libssl3 libssl1.1 libffi8 libffi7 2>/dev/null |
        awk '/^[^ ]/ { name = $1; sub(":$", "", name) } /Candidate: [^(]/ { print name }'
}

# The first of the names that this release has.
first_known() {
    local name
    for name in "$@"; do
        [[ $'\n'"$known"$'\n' != *$'\n'"$name"$'\n'* ]] || { echo "$name" && return 0; }
    done
    fail "apt knows none of these packages: $*. Run 'apt-get update' as root and repeat."
}

known="$(known_packages)"
if [ -z "$known" ]; then
    can_be_root || fail "apt knows no packages: run 'apt-get update' as root and repeat"
    say "reading the package lists"
    as_root apt-get update -qq
    known="$(known_packages)"
fi
first_known python3-minimal >/dev/null
python="$(apt-cache depends python3-minimal |
    sed -n 's/.*Depends: \(python3\.[0-9]*\)-minimal$/\1/p')"
[ -n "$python" ] || fail "apt does not say which python3 this release has"
openssl="$(first_known libssl3t64 libssl3 libssl1.1)"
ffi="$(first_known libffi8 libffi7)"
packages=("$python-minimal" "lib$python-minimal" "lib$python-stdlib" libc6 zlib1g libexpat1
    "$openssl" libbz2-1.0 liblzma5 "$ffi" dash)

say "making image $IMAGE from ${#packages[@]} Debian packages"
# Downloads are kept, so that a second run needs no network.
mkdir -p "$DEBS"
missing=()
for package in "${packages[@]}"; do
    compgen -G "$DEBS/${package}_*.deb" >/dev/null || missing+=("$package")
done
if [ "${#missing[@]}" -gt 0 ]; then
    download=(apt-get download -qq -o APT::Sandbox::User=root "${missing[@]}")
    (cd "$DEBS" && "${download[@]}") ||
        { can_be_root && as_root apt-get update -qq && (cd "$DEBS" && "${download[@]}"); } ||
        fail "could not download ${missing[*]}: run 'apt-get update' as root and repeat"
fi

tree="$(mktemp -d)"
trap 'rm -rf "$tree"' EXIT
for package in "${packages[@]}"; do
    dpkg-deb --extract "$(compgen -G "$DEBS/${package}_*.deb" | tail -n 1)" "$tree"
done
# Newer releases keep everything below /usr, older ones do not.
for folder in bin lib lib64; do
    [ -e "$tree/$folder" ] || ln -s "usr/$folder" "$tree/$folder"
done
# /bin/sh belongs to dash, but its link is made at installation.
[ -e "$tree/bin/sh" ] || ln -s dash "$tree/bin/sh"
ln -sf "$python" "$tree/usr/bin/python3"
mkdir -p "$tree/tmp" "$tree/root" "$tree/etc" "$tree/proc" "$tree/sys" "$tree/dev"
chmod 1777 "$tree/tmp"
echo 'root:x:0:0:root:/root:/bin/sh' >"$tree/etc/passwd"
tar -C "$tree" --owner=0 --group=0 --numeric-owner -c . |
    docker import --change 'CMD ["python3"]' \
        --change 'ENV PATH=/usr/local/bin:/usr/bin:/bin' - "$IMAGE:latest" >/dev/null
docker run --rm --network none "$IMAGE" python3 -c 'import json, hashlib, zlib' ||
    fail "the image $IMAGE was made but its python3 does not run"
