#!/bin/bash
# A Slurm job of one node or several, which share this folder: `sbatch infra/slurm/job.sh dvc repro` (docs/slurm.md).
# Options of sbatch's command line go before those here: sbatch --nodes=2 --gres=gpu:4 infra/slurm/job.sh dvc repro
#
#SBATCH --job-name=llm4seg
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gres=gpu:1
#SBATCH --mem=32G
#SBATCH --time=08:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.log
#
# Ray is started here and not by `ray symmetric-run` under srun, since that refuses a node with another job's Ray, ends
# such Rays with its own, and has the training in a step of Slurm, whose signals reach Ray's processes as well.
set -euo pipefail -m # -m: the command has a process group of its own

# module load python/3.11 cuda/12
inside=() # or in a container: inside=(apptainer exec --nv llm4seg.sif)
export PATH=$PWD/.venv/bin:$PATH

# Of this job alone: the token, ports (free ones, but for one), and a folder whose path is short enough for sockets.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export TMPDIR=/tmp/llm4seg-$SLURM_JOB_ID
export RAY_TMPDIR=$TMPDIR LLM4SEG_CLUSTER='{"cluster.launcher": "ray", "cluster.address": "auto", "cluster.gpus": null}'
export RAY_memory_monitor_refresh_ms=0 # it would end workers when other jobs fill the node's memory
export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0 # half a minute of the two that are left before the time limit
ray=("${inside[@]}" ray start --block --disable-usage-stats --object-store-memory=1000000000)
ray+=(--num-cpus="${SLURM_CPUS_PER_TASK:-1}" --dashboard-agent-listen-port=0)
head=(--head --port=0 --dashboard-port=0 --ray-client-server-port=$((20000 + SLURM_JOB_ID % 10000)))

end_ray() {
    kill $(jobs -p) 2>/dev/null || true
    wait
    rm -rf "$TMPDIR" || { sleep 5; rm -rf "$TMPDIR" || true; } # the last of Ray may still write; the job's code counts
}

rm -rf "$TMPDIR" # of this job before its node failed
mkdir -m 700 "$TMPDIR"
trap end_ray EXIT
"${ray[@]}" "${head[@]}" >"$TMPDIR/head.log" 2>&1 &
until [ -s "$TMPDIR/ray/ray_current_cluster" ]; do
    kill -0 $! 2>/dev/null || { cat "$TMPDIR/head.log"; exit 1; }
    sleep 1
done
RAY_ADDRESS=$(cat "$TMPDIR/ray/ray_current_cluster")
export RAY_ADDRESS
if [ "$SLURM_NNODES" -gt 1 ]; then
    srun --relative=1 --nodes=$((SLURM_NNODES - 1)) --ntasks=$((SLURM_NNODES - 1)) --cpus-per-task="$SLURM_CPUS_PER_TASK" \
        bash -c 'trap : TERM; mkdir -p -m 700 "$TMPDIR" && [ -O "$TMPDIR" ] && "$@"; rm -rf "$TMPDIR"' - \
        "${ray[@]}" --address="$RAY_ADDRESS" >"$TMPDIR/others.log" 2>&1 &
    timeout 300 "${inside[@]}" python - "$SLURM_NNODES" <<-'END' || { cat "$TMPDIR/others.log"; exit 1; }
	import ray, sys, time
	ray.init("auto", log_to_driver=False, logging_level="WARNING")
	while sum(node["Alive"] for node in ray.nodes()) < int(sys.argv[1]):
	    time.sleep(1)
	END
fi

# B:TERM@120: Slurm sends SIGTERM to this shell alone, two minutes before the end. The stage saves a checkpoint and ends;
# DVC, which would not wait for it, must not get the signal unless no stage is under way.
requeue=
stop() {
    if [[ $(squeue --noheader --format=%T --jobs="$SLURM_JOB_ID") == @(RUNNING|SIGNALING) ]]; then # not after scancel
        requeue=yes
        echo "SIGTERM: the job saves a checkpoint and is queued again"
    fi
    pkill -TERM -g "$command" -f '^[^ ]*python[0-9.]* -m pipelines\.' || kill -TERM -- "-$command" || true
}
"${inside[@]}" "$@" &
command=$!
trap stop TERM
code=0
while kill -0 "$command" 2>/dev/null; do # a signal ends `wait`, not the command
    code=0
    wait "$command" || code=$?
done
if [ "$requeue" ] && [ "$code" != 0 ]; then
    trap - EXIT
    end_ray
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
