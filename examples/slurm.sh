#!/bin/bash
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=08:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@120

# One task for each GPU. Two minutes before the time limit every task gets a signal; 75 means that the run can resume.
# From Slurm 22.05 on, srun does not take the cores of a task from the job.
srun --kill-on-bad-exit=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" \
  .venv/bin/python launch.py train "${1:?CONFIG}" --workdir "${2:?DIR}" --distributed "${@:3}"
status=$?
if [ "$status" -eq 75 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
