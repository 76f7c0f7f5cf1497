"""Freed memory that a command keeps."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# Page faults of twenty times the same 64 MB, after a first time.
COUNT_FAULTS = """
import resource, sys
import numpy as np
if sys.argv[1] == "kept":
    from distilmos.memory import keep_freed_memory
    keep_freed_memory()
for number in range(21):
    if number == 1:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(8 << 20).sum()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc can be told so")
def test_buffers_are_used_again_without_asking_the_system():
    faults = {}
    for name in ("kept", "given back"):
        command = [sys.executable, "-c", COUNT_FAULTS, name]
        faults[name] = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert faults["kept"] < 100
    assert faults["given back"] > 20 * faults["kept"]
