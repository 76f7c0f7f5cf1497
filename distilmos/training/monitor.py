"""Reports the progress of a run: log.jsonl, TensorBoard, and a progress bar or plain lines."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from distilmos.errors import InputError
from distilmos.files import without_nan
from distilmos.model.directory import LOG


class Observer:
    """No-op monitor, for all processes except the first."""

    def say(self, line: str) -> None:
        """Print one line for the user."""

    def advance(self) -> None:
        """Count one step."""

    def event(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Record an event."""

    def sync(self) -> int:
        """Return the length of the log in bytes."""
        return 0

    def close(self) -> None:
        """Release files and progress bar."""


class Monitor(Observer):
    """Writes events to log.jsonl and TensorBoard, and shows them to the user."""

    def __init__(self, directory: Path, log_bytes: int, step: int, max_steps: int) -> None:
        """Start a log, or continue one from a checkpoint: events after the checkpoint are removed.

        "resume" events after the checkpoint stay: the run repeats all other events, but not that restart.

        Args:
            directory: of the experiment.
            log_bytes: length of the log at the checkpoint; 0 starts a log.
            step: of the checkpoint.
            max_steps: the end of the progress bar.

        Raises:
            InputError: if the log is shorter than at the checkpoint.
        """
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / LOG
        present = path.stat().st_size if path.exists() else 0
        if present < log_bytes:
            raise InputError(
                f"{path}: {present} bytes, fewer than the {log_bytes} at the last checkpoint; it is damaged"
            )
        resumed = _resume_lines(path, log_bytes) if log_bytes else []
        self._log = path.open("ab")
        self._log.truncate(log_bytes)
        self._log.writelines(resumed)
        self._log.flush()
        board = directory / "tensorboard"
        if log_bytes == 0:
            shutil.rmtree(board, ignore_errors=True)
        self._board = SummaryWriter(str(board), purge_step=step + 1 if log_bytes else None)
        self._bar = tqdm(total=max_steps, initial=step, unit="step") if sys.stderr.isatty() else None

    def say(self, line: str) -> None:
        """Print one line, above the progress bar if one is shown."""
        if self._bar is None:
            print(line, flush=True)
        else:
            self._bar.write(line)

    def advance(self) -> None:
        """Move the progress bar by one step."""
        if self._bar is not None:
            self._bar.update()

    def event(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Write one event; NaN becomes null."""
        values = without_nan({"event": kind, "step": step} | values)
        self._log.write(json.dumps(values, ensure_ascii=False).encode() + b"\n")
        self._log.flush()
        if kind in ("train", "dev"):
            for name, value in _scalars(values):
                self._board.add_scalar(f"{kind}/{name}", value, step)
            self._show(kind, step, values)

    def _show(self, kind: str, step: int, values: dict[str, Any]) -> None:
        if kind == "train":
            text = _numbers(values, "loss", "regression", "token")
            if self._bar is not None:
                self._bar.set_postfix_str(text)
                return
            speed = values["seconds_per_second"]
            self.say(f"step {step} epoch {values['epoch']}: {text}, {speed:.1f} s of audio a second")
            return
        levels = [f"{level} {_numbers(values[level], 'LCC', 'SRCC')}" for level in ("utterance", "system")]
        star = " (best)" if values["best"] else ""
        self.say(f"step {step} dev: {', '.join([_numbers(values, 'regression', 'token'), *levels])}{star}")

    def sync(self) -> int:
        """Flush the log to disk; return its length in bytes."""
        os.fsync(self._log.fileno())
        self._board.flush()
        return self._log.tell()

    def close(self) -> None:
        """Close files and progress bar."""
        self._log.close()
        self._board.close()
        if self._bar is not None:
            self._bar.close()


def _resume_lines(path: Path, log_bytes: int) -> list[bytes]:
    """Return the complete lines of "resume" events after the first `log_bytes` bytes of a log."""
    with path.open("rb") as log:
        log.seek(log_bytes)
        return [line for line in log if line.startswith(b'{"event": "resume"') and line.endswith(b"}\n")]


def _numbers(values: dict[str, Any], *names: str) -> str:
    return ", ".join(f"{name} {values[name]:.4f}" for name in names if values[name] is not None)


def _scalars(values: dict[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    """Flatten an event to (name, number) pairs; list items are numbered from 1, like layers."""
    found: list[tuple[str, float]] = []
    for key, value in values.items():
        if isinstance(value, dict):
            found += _scalars(value, f"{prefix}{key}/")
        elif isinstance(value, list):
            found += _scalars({str(place): item for place, item in enumerate(value, start=1)}, f"{prefix}{key}/")
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and key != "step":
            found.append((prefix + key, float(value)))
    return found
