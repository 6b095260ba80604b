"""Starts Dask workers as SLURM jobs and keeps them until it is stopped (Ctrl-C ends the jobs).

    pip install dask-jobqueue
    python docs/examples/slurm_cluster.py 64 scheduler.json        # 64 workers; leave it running
    dvc repro                                                      # with dask.scheduler: scheduler.json

One core and 6 GB a worker are enough for every stage without a GPU. For `latents` on GPUs start another
cluster with `GPU = True` below and run that stage alone with `latents.device=cuda`: its tasks ask for the
resource GPU.
"""

import sys
import time
from pathlib import Path

import dask
from dask_jobqueue import SLURMCluster

GPU = False

# A scan that kills its worker is found at once, and scans that only waited there are not blamed.
dask.config.set({"distributed.scheduler.allowed-failures": 0, "distributed.scheduler.worker-saturation": 1.0})


def main(num_workers: int, scheduler_file: str) -> None:
    cluster = SLURMCluster(
        queue="normal",
        walltime="04:00:00",
        processes=1,
        cores=1,
        memory="6GB",
        python=sys.executable,
        job_script_prologue=[f"cd {Path.cwd()}"],  # the folder of the checkout, on a disk that all nodes see
        job_extra_directives=["--gres=gpu:1"] if GPU else [],
        worker_extra_args=["--resources", "GPU=1"] if GPU else [],
        scheduler_options={"scheduler_file": scheduler_file, "dashboard_address": "127.0.0.1:0"},
    )
    cluster.scale(jobs=num_workers)
    try:
        while True:
            time.sleep(60)
    except KeyboardInterrupt:
        cluster.close()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
