"""Provenance of results: machine, commit of the code, and time."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def commit() -> str | None:
    """Return the commit of the code, with -dirty if it has been changed since; None if it is not under git."""
    here = Path(__file__)

    def git(*words: str) -> str:
        command = ["git", "-C", str(here.parent), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)  # the package may be installed inside of another repository
        return git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return None


def cpu_name() -> str:
    """Return the name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def now() -> str:
    """Return the current time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def machine(device: torch.device) -> dict[str, Any]:
    """Describe the machine for a result: processor, threads, GPU (None without one) and versions."""
    import torch  # imported here: commands that only show results start without it

    return {
        "cpu": cpu_name(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def machine_text(values: Mapping[str, Any]) -> str:
    """Format the description that `machine` returns as one line."""
    parts = [values.get("gpu") or "no GPU", values.get("cpu")]
    if values.get("threads"):
        parts.append(f"{values['threads']} threads")
    versions = {"PyTorch": values.get("torch"), "Python": values.get("python")}
    parts += [f"{name} {version}" for name, version in versions.items() if version]
    return "; ".join(str(part) for part in parts if part)
