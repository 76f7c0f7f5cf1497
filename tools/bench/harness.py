"""What the benchmarks share: sides that run in turn, their figures with spread and ratio, as text, JSON and one table.

A benchmark compares our way of doing something with a named reference that does the same on the same input. The sides
run in turn, reference, ours, reference, ours, ..., so that a machine whose speed drifts does it to both; ratios are
those of neighbours.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from distilmos.data.tables import read_lines
from distilmos.files import write_json, write_text
from distilmos.markdown import markdown_table
from distilmos.provenance import commit, cpu_name, now

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PACKAGES = ("torch", "torchaudio", "ve-fairseq", "scikit-learn", "numpy", "kaldiio", "soundfile", "sheet-sqa")


@dataclass(frozen=True)
class Side:
    """One way of doing the work.

    Attributes:
        name: short, for tables.
        what: exactly what runs.
        run: does it once; returns its figures, "seconds" among them.
    """

    name: str
    what: str
    run: Callable[[], Mapping[str, float]]


@dataclass(frozen=True)
class Goal:
    """What a benchmark should show.

    Attributes:
        text: such as "at least 3 times the throughput".
        value: what was measured, as text.
        reached: whether it is.
    """

    text: str
    value: str
    reached: bool


@dataclass
class Report:
    """A benchmark's outcome.

    Attributes:
        name: of the benchmark, and of its files.
        title: one line.
        work: what both sides do: audio, sizes, weights.
        sides: name -> what runs.
        runs: name -> figures of each run, in the order in which they were made.
        reference: the side that ratios refer to.
        facts: other figures, name -> value.
        goals: see Goal.
    """

    name: str
    title: str
    work: str
    reference: str = ""
    sides: dict[str, str] = field(default_factory=dict)
    runs: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    goals: list[Goal] = field(default_factory=list)

    def measure(self, sides: Sequence[Side], repeats: int) -> None:
        """Run each side `repeats` times, in turn; the first side is the reference."""
        self.reference = self.reference or sides[0].name
        for side in sides:
            self.sides[side.name] = side.what
        for number in range(repeats):
            for side in sides:
                figures = dict(side.run())
                self.runs.setdefault(side.name, []).append(figures)
                shown = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
                print(f"{self.name}: run {number + 1} of {repeats}, {side.name}: {shown}", flush=True)

    def ratio(self, side: str, figure: str = "seconds") -> list[float]:
        """Return reference / side of `figure`, run by run: above 1 where the side takes less."""
        return _ratios(self.runs, self.reference, side, figure)

    def finish(self) -> None:
        """Print the outcome, write it to results/, and renew the table of README.md."""
        content = {
            **asdict(self),
            "machine": machine(),
            "versions": versions(),
            "command": shlex.join(["python", f"tools/bench/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
            "commit": commit(),
            "time": now(),
        }
        text = as_text(content)
        print(text)
        write_json(RESULTS / f"{self.name}.json", content)
        write_text(RESULTS / f"{self.name}.txt", text)
        write_summary()


def spread(values: Sequence[float]) -> str:
    """Return `median (least to most)`."""
    if len(values) == 1:
        return f"{values[0]:.4g} (one run)"
    return f"{median(values):.4g} ({min(values):.4g} to {max(values):.4g})"


def as_text(content: Mapping[str, Any]) -> str:
    """Return the outcome of a benchmark for people."""
    machine_line = ", ".join(f"{name} {value}" for name, value in content["machine"].items())
    lines = [
        f"# {content['title']}",
        "",
        content["work"],
        "",
        f"machine: {machine_line}",
        "versions: " + ", ".join(f"{name} {value}" for name, value in content["versions"].items()),
        f"command: {content['command']}",
        f"commit: {content['commit']}; {content['time']}",
        "",
    ]
    lines += [f"- {name}: {what}" for name, what in content["sides"].items()]
    runs = content["runs"]
    if runs:
        figures = list(dict.fromkeys(figure for side in runs.values() for run in side for figure in run))
        rows = []
        for name, several in runs.items():
            cells = [spread([run[figure] for run in several]) if figure in several[0] else "" for figure in figures]
            rows.append([name, str(len(several)), *cells, _ratio_cell(content, name)])
        lines += ["", markdown_table(["side", "runs", *figures, "times as fast as the reference"], rows)]
    lines += [f"- {name}: {value}" for name, value in content["facts"].items()]
    if content["goals"]:
        lines.append("")
        lines += [
            f"- goal: {goal['text']}: {goal['value']}: {'reached' if goal['reached'] else 'NOT reached'}"
            for goal in content["goals"]
        ]
    return "\n".join(lines) + "\n"


def _ratio_cell(content: Mapping[str, Any], name: str) -> str:
    runs = content["runs"]
    if name == content["reference"] or len(runs[name]) != len(runs[content["reference"]]):
        return ""
    return spread(_ratios(runs, content["reference"], name, "seconds"))


def _ratios(runs: Mapping[str, list[dict[str, float]]], reference: str, side: str, figure: str) -> list[float]:
    return [one[figure] / other[figure] for one, other in zip(runs[reference], runs[side], strict=True)]


def write_summary() -> None:
    """Renew the table in README.md from all results, behind its line `<!-- results -->`."""
    rows = []
    for path in sorted(RESULTS.glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        for goal in content["goals"]:
            rows.append([content["name"], goal["text"], goal["value"], "yes" if goal["reached"] else "no"])
    marker = "<!-- results -->"
    readme = HERE / "README.md"
    kept = []
    for line in read_lines(readme):
        kept.append(line)
        if line == marker:
            break
    table = markdown_table(["benchmark", "goal", "measured", "reached"], rows)
    write_text(readme, "\n".join(kept) + "\n\n" + table.strip() + "\n")


def machine() -> dict[str, Any]:
    """Return what the figures depend on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "memory": f"{memory / 2**30:.0f} GiB",
        "system": platform.platform(terse=True),
    }


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that are measured, as far as they are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def run_process(command: Sequence[str | Path], **environment: str) -> dict[str, float]:
    """Run a command to its end; return its "seconds" and "peak_mb", the memory of its largest process.

    Raises:
        SystemExit: with what it printed, if it fails.
    """
    reading, writing = os.pipe()
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-S", HERE / "measure.py", str(writing), *map(str, command)],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=[writing],
        check=False,
    )
    seconds = time.perf_counter() - started
    os.close(writing)
    if done.returncode:
        sys.exit(f"{shlex.join(map(str, command))}\n{done.stdout.decode(errors='replace')[-3000:]}")
    with os.fdopen(reading) as stream:
        return {"seconds": seconds, "peak_mb": int(stream.read()) / 1000}


def run_text(command: Sequence[str | Path | int], **environment: str) -> str:
    """Run a command to its end; return what it printed to stdout.

    Raises:
        SystemExit: with what it said, if it fails.
    """
    words = [str(word) for word in command]
    done = subprocess.run(words, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{shlex.join(words)}\n{done.stderr[-3000:]}")
    return done.stdout


def parser(description: str | None, repeats: int) -> argparse.ArgumentParser:
    """Return a parser with the options that all benchmarks have."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--repeats", type=int, default=repeats, help=f"runs of each side (default: {repeats})")
    options.add_argument(
        "--speech",
        type=Path,
        default=os.environ.get("SPEECH"),
        help="directory of recordings to make the audio from (default: $SPEECH, else synthetic speech of eSpeak NG)",
    )
    return options
