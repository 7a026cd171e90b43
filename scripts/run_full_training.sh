#!/usr/bin/env bash
# Run every stage of a recipe in order, from raw data to a validated Hub-ready model folder.
#
#   scripts/run_full_training.sh recipes/quickstart/config.yaml [--key value ...]
#
# Finished stages are skipped, so the same command goes on after a stop. The exit code is that of the validation: 0 when
# all targets of the recipe are met, 1 when one is missed. Embedding, mining and training are launched with accelerate
# when ACCELERATE_CONFIG names a configuration:
#
#   ACCELERATE_CONFIG=accelerate_configs/multi_gpu_fp16.yaml scripts/run_full_training.sh recipes/sapbert-medmentions/config.yaml
set -euo pipefail

if [[ $# -lt 1 || $1 == -h || $1 == --help ]]; then
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"
    exit $(($# < 1 ? 2 : 0))
fi

scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-python}
launch=("$python")
if [[ -n ${ACCELERATE_CONFIG:-} ]]; then
    launch=("$python" -m accelerate.commands.launch --config_file "$ACCELERATE_CONFIG")
fi

"$python" "$scripts/prepare_data.py" "$@"
"$python" "$scripts/train_encoder.py" "$@"
"${launch[@]}" "$scripts/build_index.py" "$@"
"${launch[@]}" "$scripts/mine_negatives.py" "$@"
"${launch[@]}" "$scripts/train.py" "$@"
"$python" "$scripts/calibrate.py" "$@"
"$python" "$scripts/evaluate.py" "$@"
status=0
"$python" "$scripts/validate.py" "$@" || status=$?
"$python" "$scripts/summarize.py" "$@"
exit "$status"
