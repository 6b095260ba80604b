"""Shards to a trained model; `run.py` is the command."""

import os

# Read when torch loads OpenMP, so it stands before every import of torch. Threads that spin while they wait
# make a CPU step ten times slower as soon as another process wants a core; sleeping ones cost a few percent.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
