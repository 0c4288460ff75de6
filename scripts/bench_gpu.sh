#!/usr/bin/env bash
# What a GPU trains, in one command: ResNet-50, AlexNet and resnet20, on images made up, held on the device and read as
# JPEG files, in bf16 with and without compile, and their share of the device's peak.
#
#   scripts/bench_gpu.sh OUT_DIR
#
# DEVICE=cuda, IMAGENET=DIR (the JPEG files; left out where it is not given), CIFAR=DIR (the small images that stay on
# the device; also left out), BATCH=256, SECONDS_EACH=5, NETS="resnet50 alexnet". TINY=1 tries the script itself, on a CPU.

# shellcheck source-path=SCRIPTDIR source=_env.sh
HERE=$PWD
. "$(dirname "${BASH_SOURCE[0]}")/_env.sh"

[ $# -eq 1 ] || die "usage: scripts/bench_gpu.sh OUT_DIR"
case $1 in /*) OUT=$1 ;; *) OUT=$HERE/$1 ;; esac
DEVICE=${DEVICE:-cuda} BATCH=${BATCH:-256} SECONDS_EACH=${SECONDS_EACH:-5} NETS=${NETS:-resnet50 alexnet}
PRECISION=bf16 COMPILE=true MORE=()
if [ "${TINY:-}" = 1 ]; then
    DEVICE=cpu BATCH=8 SECONDS_EACH=0.05 NETS=resnet8 PRECISION=fp32 COMPILE=false MORE=(warmup=2)
fi

bench() { # name, then arguments of cnnbench benchmark
    local name=$1
    shift
    echo "== $name: $*" >&2
    "$PYTHON" -m cnnbench benchmark "$@" "device=$DEVICE" "precisions=$PRECISION" "compile=$COMPILE" \
        "seconds=$SECONDS_EACH" "${MORE[@]}" format=markdown "run.dir=$OUT/$name" >"$OUT/$name.md"
}

mkdir -p "$OUT"
{
    date -u +%Y-%m-%d
    nvidia-smi --query-gpu=name,driver_version,power.limit --format=csv,noheader 2>/dev/null || echo "no GPU is seen"
} >"$OUT/machine.txt"

for net in $NETS; do
    bench "$net-synthetic" "model=$net" "batch_size=$BATCH"
    if [ -n "${IMAGENET:-}" ]; then
        bench "$net-jpeg" "model=$net" data=imagenet "data.root=$IMAGENET" "batch_size=$BATCH"
    fi
done
if [ -n "${CIFAR:-}" ]; then
    bench resnet20-cached model=resnet20 data=cifar10 "data.root=$CIFAR" data.cache=device "batch_size=$((4 * BATCH))"
elif [ "${TINY:-}" = 1 ]; then
    bench resnet8-cached model=resnet8 data=digits data.cache=device "batch_size=$BATCH"
fi

{
    cat "$OUT/machine.txt"
    for page in "$OUT"/*-*.md; do
        printf '\n## %s\n\n' "$(basename "$page" .md)"
        cat "$page"
    done
} >"$OUT/results.md"
echo "-> $OUT/results.md"
