#!/bin/bash
#SBATCH --array=1-8
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=08:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@120

# Eight times the same comparison: each task trains the runs that no other has finished or is training.
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" \
  .venv/bin/python launch.py compare "${1:?CONFIG}" --workdir "${2:?DIR}" --processes 1 "${@:3}"
status=$?
if [ "$status" -eq 75 ]; then
  # Not $SLURM_JOB_ID, which for the last task names the whole array.
  scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
fi
exit "$status"
