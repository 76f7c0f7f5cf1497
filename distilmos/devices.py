"""The cores and GPUs that this process may use."""

from __future__ import annotations

import os
import shutil
import subprocess
from itertools import takewhile


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads() -> int:
    """Return the number of threads to compute with: one for each core, unless OMP_NUM_THREADS is smaller."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(cores(), int(given))) if given.isdecimal() else cores()


def gpus() -> list[str]:
    """Return the GPUs in CUDA_VISIBLE_DEVICES or, if it is not set, the numbers of all NVIDIA GPUs of this machine."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        # As CUDA reads it: the list ends at the first name that is none, such as -1 or Slurm's NoDevFiles.
        names = (name.strip() for name in visible.split(","))
        return list(takewhile(lambda name: name.isdecimal() or name.startswith(("GPU-", "MIG-")), names))
    if shutil.which("nvidia-smi") is None:
        return []
    listing = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=False)
    return [str(number) for number, _ in enumerate(listing.stdout.splitlines())] if listing.returncode == 0 else []
