#!/bin/bash
# The first eight minutes on a machine with a GPU: what is right, how much memory, how fast, as one Markdown table for
# docs/notes/gpu.md. Every step has a time limit of its own, and one that fails ends no other.
set -u
cd "$(dirname "$0")/../.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

usage() {
    cat <<END
usage: tests/gpu/first_minutes.sh [--cpu]

Runs checks of a new GPU machine in at most 8 minutes and prints a Markdown table for docs/notes/gpu.md.

  --cpu   without a GPU: what can be run there runs on the CPU, with small sizes

example: tests/gpu/first_minutes.sh > table.md
END
}

device=cuda
case "${1:-}" in
    "") ;;
    --cpu) device=cpu ;;
    -h | --help) usage; exit 0 ;;
    *) echo "first_minutes.sh: found $1, allowed: --cpu, --help" >&2; exit 2 ;;
esac

# step NAME SECONDS COMMAND...: a row with the command's last line, or why there is none
step() {
    local name=$1 limit=$2 begun=$SECONDS code=0 said
    shift 2
    echo "first_minutes: $name, at most $limit s" >&2
    timeout --kill-after=5 "$limit" "$@" >"$folder/out" 2>"$folder/err" || code=$?
    said=$(grep -v '^[[:space:]]*$' "$folder/out" | tail -n 1)
    [ -n "$said" ] || said=$(grep -v '^[[:space:]]*$' "$folder/err" | tail -n 1)
    case $code in
        0) ;;
        124 | 137) said="**not done in $limit s** $said" ;;
        *) said="**failed ($code)** $said" ;;
    esac
    echo "| $name | ${said//|/\\|} | $((SECONDS - begun)) |"
    [ "$code" = 0 ] || tail -n 20 "$folder/out" "$folder/err" >&2
}

correct() {
    if [ "$device" = cpu ]; then
        step "$1" "$2" echo "no GPU"
    else
        step "$1" "$2" python -m pytest -q -p no:xdist -p no:cacheprovider -m gpu "${@:3}"
    fi
}

step "machine" 30 python -m tests.gpu.first_minutes machine >"$folder/machine"
echo "### $(date -u +%Y-%m-%d): $(sed 's/^| machine | \(.*\) | [0-9]* |$/\1/' "$folder/machine")"
echo
echo "| what | found | s |"
echo "|---|---|---|"
correct "a training: graph, launches, waits" 80 tests/gpu/test_graph_on_gpu.py -k "default or launch or waits"
correct "as on the CPU: torch, ZeRO 1 and 3" 90 tests/gpu/test_train_on_gpu.py
step "GPU memory, LLM layer of 470 MB" 90 python -m tests.gpu.first_minutes memory --device "$device"
step "images/s and launches, against a plain loop" 90 python -m tests.gpu.first_minutes speed --device "$device"
step "launches of a step, counted without a GPU" 40 python -m tests.gpu.first_minutes launches
step "offload to NVMe" 60 python -m tests.gpu.first_minutes nvme --device "$device"
