#!/usr/bin/env bash
# What a GPU gives, in one command of at most nine minutes: scripts/gpu_check.sh OUT [PART ...]
# What its parts are: scripts/gpu_check.py, without arguments. CIFAR=DIR: CIFAR-10 for cifar94. TINY=1: on a CPU.

# shellcheck source-path=SCRIPTDIR source=_env.sh
HERE=$PWD
. "$(dirname "${BASH_SOURCE[0]}")/_env.sh"
[ $# -ge 1 ] || die "usage: scripts/gpu_check.sh OUT [PART ...]"
case $1 in /*) OUT=$1 ;; *) OUT=$HERE/$1 ;; esac
shift
exec "$PYTHON" scripts/gpu_check.py "$OUT" "$@"
