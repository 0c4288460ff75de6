# shellcheck shell=bash
# Sourced by the other scripts: goes to the project's folder and sets PYTHON to an interpreter that has the project.
#
# In this order: CNNBENCH_PYTHON (an interpreter), VENV (a folder), an active virtual or conda environment, .venv.
# The project's own environments, VENV or .venv, are made when missing and brought up to date when pyproject.toml or
# the constraints change; any other is used as it is and installed into only if something is missing.
# CONSTRAINTS names another constraints file. Nothing is ever asked on stdin.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1
CONSTRAINTS=${CONSTRAINTS:-constraints.txt}

die() {
    echo "${0##*/}: $*" >&2
    exit 1
}

find_python() { # the first interpreter that is new enough
    local name
    for name in python3 python3.14 python3.13 python3.12 python3.11 python; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$name"
            return
        fi
    done
    die "no Python 3.11 or newer was found: install one, or name it in CNNBENCH_PYTHON"
}

install() { # arguments for pip
    "$PYTHON" -m pip --version >/dev/null 2>&1 || "$PYTHON" -m ensurepip >/dev/null 2>&1 ||
        die "$PYTHON has no pip: install it, or run this outside that environment"
    [ -t 1 ] || set -- --quiet "$@"
    "$PYTHON" -m pip install "$@" </dev/null
}

own_environment() { # a folder that belongs to this project
    local venv=$1 stamp python
    PYTHON=$venv/bin/python
    stamp=$(cat pyproject.toml "$CONSTRAINTS" | cksum)
    if [ -x "$PYTHON" ] && [ "$(cat "$venv/.cnnbench-stamp" 2>/dev/null)" = "$stamp" ]; then
        return
    fi
    if ! "$PYTHON" -m pip --version >/dev/null 2>&1; then
        python=$(find_python)
        "$python" -m venv "$venv" || die "could not make $venv: is Python's venv module installed?"
    fi
    echo "Installing into $venv (once; torch is large, this takes minutes)" >&2
    install -c "$CONSTRAINTS" -e '.[dev]'
    echo "$stamp" >"$venv/.cnnbench-stamp" # only now: an interrupted installation is taken up again
}

foreign_environment() { # an interpreter of somebody else's environment
    PYTHON=$1
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || die "$PYTHON is not Python 3.11 or newer"
    # Asked from elsewhere, since in this folder `import cnnbench` always succeeds.
    if (cd / && "$PYTHON" -c "
import importlib.util, sys
sys.exit(not all(map(importlib.util.find_spec, 'cnnbench torch torchvision hydra ${NEEDS:-}'.split())))"); then
        return
    fi
    echo "Installing into the active environment of $PYTHON" >&2
    # Its torch is its owner's choice: constraints hold only where there is none yet.
    if "$PYTHON" -c 'import importlib.util, sys; sys.exit(not importlib.util.find_spec("torch"))'; then
        install -e '.[dev]'
    else
        install -c "$CONSTRAINTS" -e '.[dev]'
    fi
}

[ -f "$CONSTRAINTS" ] || die "there is no constraints file '$CONSTRAINTS'"
active=${VIRTUAL_ENV:-${CONDA_PREFIX:-}}
if [ -n "${CNNBENCH_PYTHON:-}" ]; then
    PYTHON=$(command -v "$CNNBENCH_PYTHON") || die "CNNBENCH_PYTHON='$CNNBENCH_PYTHON' cannot be run"
    foreign_environment "$PYTHON"
elif [ -n "${VENV:-}" ]; then
    own_environment "$VENV"
elif [ -n "$active" ] && [ "$active" != "$PWD/.venv" ]; then
    foreign_environment "$active/bin/python"
else
    own_environment .venv
fi
