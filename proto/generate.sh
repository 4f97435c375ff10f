#!/bin/sh
# Generates the Python stubs of both protos into a folder (agent/ when none is given).
#
#   proto/generate.sh [folder]
#
# grpcio-tools comes into a virtual environment of its own (target/proto-venv, or PROTO_VENV), so
# nothing is installed on the system. The Rust code is made by `cargo xtask codegen`, not here.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
out=${1:-$here/../agent}
venv=${PROTO_VENV:-$here/../target/proto-venv}
python=${PYTHON:-python3}

if ! command -v "$python" >/dev/null 2>&1; then
    echo "generate.sh: $python is not there. Install Python 3 (Debian: apt-get install python3)." >&2
    exit 1
fi

if ! "$venv/bin/python" -c 'import grpc_tools' >/dev/null 2>&1; then
    mkdir -p "$(dirname -- "$venv")"
    if ! "$python" -m venv "$venv"; then
        echo "generate.sh: no virtual environment. Debian: apt-get install python3-venv." >&2
        exit 1
    fi
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check grpcio-tools
fi

mkdir -p "$out"
"$venv/bin/python" -m grpc_tools.protoc --proto_path="$here" \
    --python_out="$out" --pyi_out="$out" --grpc_python_out="$out" \
    master_worker.proto master_agent.proto
echo "Python stubs are in $out"
