#!/usr/bin/env bash
# Compares the best configurations of every model that is found below a folder of results.
#
#   batch_optimal_comparison.sh [RESULTS_ROOT] [OUTPUT_DIR] [MODEL...]
#
# Without MODEL, all of them; otherwise only these, such as eqcct or phasenet_original.
set -euo pipefail

case "${1:-}" in
-h | --help)
    sed -n 's/^# \{0,1\}//p' "${BASH_SOURCE[0]}" | tail -n +2
    exit 0
    ;;
esac

root="${1:-results/trials/}"
out="${2:-visualizations/optimal_comparisons/}"
shift $(($# < 2 ? $# : 2))
script="$(dirname "${BASH_SOURCE[0]}")/visualize_trial_results.py"
python="${PYTHON:-python3}"

if [ $# -eq 0 ]; then
    exec "$python" "$script" --optimal --compare --batch --results_root "$root" --output_dir "$out"
fi

failed=0
for model in "$@"; do
    "$python" "$script" --optimal --compare --model "$model" \
        --results_root "$root" --output_dir "$out/$model" || failed=1
done
exit "$failed"
