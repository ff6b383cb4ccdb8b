#!/usr/bin/env bash
# On a machine with a GPU: the op's tests, then every benchmark, into ${OUT:-benchmarks}/<device>-<date>/.
#
#   tools/analysis/run_on_gpu.sh                      all steps, about half an hour
#   tools/analysis/run_on_gpu.sh resnet50 convnext_t  these steps, a few minutes
#   QUICK=1 tools/analysis/run_on_gpu.sh              small sizes, to try the script itself; a CPU
#                                                     will do
#
# The steps are tests, resnet50, convnext_t, op-float16, op-bfloat16 and op-float32. PYTHON names the
# interpreter (python3), WHEELS a folder of wheels to install benchmarks/gpu-requirements.txt from
# first. All chosen steps run, even if one fails; the exit status is then 1.
set -uo pipefail
cd "$(dirname "$0")/../.."
all='tests resnet50 convnext_t op-float16 op-bfloat16 op-float32'
wanted=" ${*:-$all} "
for name in $wanted; do
    if [[ " $all " != *" $name "* ]]; then
        echo "run_on_gpu.sh: there is no step '$name': choose from $all" >&2
        exit 2
    fi
done
python=${PYTHON:-python3}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}

if [[ -n ${WHEELS:-} ]]; then
    "$python" -m pip install --quiet --no-deps --no-index --find-links "$WHEELS" \
        -r benchmarks/gpu-requirements.txt || exit 1
fi
device=$("$python" -c '
import re, torch
from benchmarks.timing import name_device, pick_device
print(re.sub("[^a-z0-9]+", "-", name_device(pick_device()).lower()).strip("-"))') || exit 1
folder=${OUT:-benchmarks}/$device-$(date -u +%Y-%m-%d)
mkdir -p "$folder"
failed=0

step() {  # NAME COMMAND...: its output goes to NAME.log and, if it fails, to the screen
    local name=$1 start=$SECONDS
    shift
    [[ $wanted == *" $name "* ]] || return 0
    if "$@" >"$folder/$name.log" 2>&1; then
        echo "$name: $((SECONDS - start)) s"
    else
        echo "$name: FAILED (status $?) after $((SECONDS - start)) s, end of $folder/$name.log:"
        tail -n 20 "$folder/$name.log"
        failed=1
    fi
}

if [[ -n ${QUICK:-} ]]; then
    op=(--batch-size 2 --seconds 0 --shapes dw3:8x9x7 dense3:6x8x8:s2)
    model=(--batch-size 2 --seconds 0 --shape 64 64 --modes eager amp amp+channels-last)
    tests=(-k without_context)
else
    op=()
    model=(--modes amp+channels-last amp+channels-last+graph amp+channels-last+compile eager)
    tests=()
fi
# Each test in a line of the log, so that it names those that failed before a time limit.
step tests "$python" -m pytest -v -p no:cacheprovider tests/ops "${tests[@]}"
for network in resnet50 convnext_t; do
    step "$network" "$python" tools/analysis/benchmark.py "configs/ctx_${network}_in1k.py" \
        "${model[@]}" --json "$folder/$network.json" --markdown "$folder/$network.md" \
        --plot "$folder/$network.png" --trace "$folder/traces"
done
for dtype in float16 bfloat16 float32; do
    step "op-$dtype" "$python" tools/analysis/benchmark_op.py "${op[@]}" --dtype "$dtype" \
        --json "$folder/op-$dtype.json" --markdown "$folder/op-$dtype.md"
done
echo "results in $folder"
exit $failed
