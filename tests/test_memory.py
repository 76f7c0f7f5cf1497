"""Freed memory that a command keeps."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

# Page faults of twenty times the same 64 MB, after a first time.
COUNT_FAULTS = """
import resource, sys
import torch
from distilmos import memory
name, *arguments = sys.argv[1:]
if name != "default":
    getattr(memory, name)(*map(int, arguments))
for number in range(21):
    if number == 1:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(16 << 20).sum()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(*setting: str) -> int:
    command = [sys.executable, "-c", COUNT_FAULTS, *setting]
    # Commands that other tests ran in this process have set it.
    environment = {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"}
    return int(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc can be told so")
def test_buffers_are_used_again_without_asking_the_system():
    """Unless the network is large: its memory would grow."""
    default = faults("default")
    assert faults("keep_freed_memory", "3000000") < default / 2  # the first few need new memory
    assert faults("keep_freed_memory", "94000000") > default / 2


HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.mark.skipif(
    not HUGE_PAGES.exists() or "[never]" in HUGE_PAGES.read_text(), reason="this system has no transparent huge pages"
)
def test_huge_pages_need_few_faults():
    assert faults("use_huge_pages") < faults("default") / 10
