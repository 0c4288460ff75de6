#!/usr/bin/env bash
# The depth study of the ResNet paper on one GPU: scripts/gpu_study.sh OUT CIFAR_DIR [SEEDS]
#
# experiment=degradation_cifar10: nine nets of 64,000 steps each, for every seed (default: 0; the paper's table: 0,1,2).
# JOBS=9 trainings share the GPU, each in steps that it replays (graphs=auto). The same command goes on where it was cut.
# Where NVIDIA's MPS is installed, kernels of several trainings run at the same moment; without it they take turns.
# At the end: seconds in all, and the table of the runs, also in OUT/study.md. TINY=1 tries it on a CPU: two nets, two steps.

# shellcheck source-path=SCRIPTDIR source=_env.sh
HERE=$PWD
. "$(dirname "${BASH_SOURCE[0]}")/_env.sh"
absolute() { case $1 in /*) echo "$1" ;; *) echo "$HERE/$1" ;; esac; }

TINY=${TINY:-}
[ $# -ge 2 ] || [ "$TINY" = 1 ] || die "usage: scripts/gpu_study.sh OUT CIFAR_DIR [SEEDS]"
OUT=$(absolute "$1")
OWN=("seed=${3:-0}" graphs=auto)
if [ "$TINY" = 1 ]; then
    OWN+=(data=synthetic data.num_classes=10 data.num_images=256 data.image_size=32 device=cpu model=plain20,resnet20
        max_steps=2 seed=0)
else
    OWN+=("data.root=$(absolute "$2")" device=cuda)
fi

mkdir -p "$OUT"
end_mps() {
    echo quit | nvidia-cuda-mps-control
    rm -rf "$CUDA_MPS_PIPE_DIRECTORY"
}
if [ -z "${CUDA_MPS_PIPE_DIRECTORY:-}" ] && command -v nvidia-cuda-mps-control >/dev/null; then
    CUDA_MPS_PIPE_DIRECTORY=$(mktemp -d) CUDA_MPS_LOG_DIRECTORY=$OUT
    export CUDA_MPS_PIPE_DIRECTORY CUDA_MPS_LOG_DIRECTORY
    if nvidia-cuda-mps-control -d; then
        trap end_mps EXIT
    else
        echo "gpu_study.sh: MPS did not start: the trainings take turns on the GPU" >&2
        unset CUDA_MPS_PIPE_DIRECTORY CUDA_MPS_LOG_DIRECTORY
    fi
fi
begin=$SECONDS
"$PYTHON" -m cnnbench train -m experiment=degradation_cifar10 hydra/launcher=local "hydra.launcher.jobs=${JOBS:-9}" \
    "${OWN[@]}" "sweep.dir=$OUT/runs"
took=$((SECONDS - begin))
{
    printf '%s, %s: %s s in all (0 where all runs were done before)\n\n' "$(date -u +%Y-%m-%d)" \
        "$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null || echo 'no GPU')" "$took"
    "$PYTHON" -m cnnbench report "$OUT/runs" format=markdown
} | tee "$OUT/study.md"
