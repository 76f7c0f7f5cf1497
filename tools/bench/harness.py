"""Shared code of the benchmarks: run the sides in turn, and write figures and ratios as text, JSON and a table.

A benchmark compares our implementation with a named reference that does the same work on the same input. The sides run
in turn (reference, ours, reference, ours, ...), so that a drift in the speed of the machine affects all of them. Ratios
compare neighbouring runs.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import re
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
    """One implementation of the work.

    Attributes:
        name: short name for tables.
        what: exact description of the work.
        run: does the work once and returns its figures, including "seconds".
    """

    name: str
    what: str
    run: Callable[[], Mapping[str, float]]


@dataclass(frozen=True)
class Goal:
    """A goal of a benchmark.

    Attributes:
        text: the goal, such as "at least 3 times the throughput".
        value: measured value as text.
        reached: whether the value reaches the goal.
    """

    text: str
    value: str
    reached: bool


@dataclass
class Report:
    """The results of a benchmark.

    Attributes:
        name: name of the benchmark and of its files.
        title: one line.
        work: work of all sides: audio, sizes, weights.
        sides: name -> exact description of the work.
        runs: name -> figures of each run, in the order of the runs.
        reference: side that ratios refer to.
        facts: other figures, name -> value.
        goals: goals with the measured values.
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
        """Run the sides in turn, `repeats` times each; the first side is the reference."""
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
        """Return reference / side of `figure` for each run; it is above 1 if the side takes less."""
        return _ratios(self.runs, self.reference, side, figure)

    def finish(self) -> None:
        """Print the results, write them to results/, and update the table in README.md."""
        script = Path(sys.argv[0]).resolve()
        content = {
            **asdict(self),
            "machine": machine(),
            "versions": versions(),
            "command": shlex.join(
                ["python", f"tools/{script.parent.name}/{script.name}", *map(without_folders, sys.argv[1:])]
            ),
            "commit": commit(),
            "time": now(),
        }
        text = as_text(content)
        print(text)
        write_json(RESULTS / f"{self.name}.json", content)
        write_text(RESULTS / f"{self.name}.txt", text)
        write_summary()


def without_folders(argument: str) -> str:
    """Return an argument with the base name of its path only, because results hold no paths of the machine."""
    return re.sub(r"[^=]*/(?=.)", "", argument)


def spread(values: Sequence[float]) -> str:
    """Return the values as `median (lowest to highest)`."""
    if len(values) == 1:
        return f"{values[0]:.4g} (one run)"
    return f"{median(values):.4g} ({min(values):.4g} to {max(values):.4g})"


def as_text(content: Mapping[str, Any]) -> str:
    """Return the content of results/NAME.json as readable text."""
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
    """Update the table in README.md, after its line `<!-- results -->`, from all results."""
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
    """Return the properties of the machine that the figures depend on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "memory": f"{memory / 2**30:.0f} GiB",
        "system": platform.platform(terse=True),
    }


def versions() -> dict[str, str]:
    """Return the versions of Python and of those of PACKAGES that are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def size_of(directory: Path) -> int:
    """Return the bytes of the files in a directory, without logs."""
    files = (path for path in directory.rglob("*") if path.is_file())
    return sum(path.stat().st_size for path in files if "log" not in path.relative_to(directory).parts)


def run_process(command: Sequence[str | Path], **environment: str) -> dict[str, float]:
    """Run a command; return its "seconds" and "peak_mb", the memory of its largest process.

    Raises:
        SystemExit: if it fails; shows its output.
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


def run_plan(options: Sequence[str | Path], jobs: int, threads: int, out: Path) -> dict[str, dict[str, Any]]:
    """Run `distilmos plan`, which writes `out`; return stage -> its figures, in seconds and bytes, None if unknown.

    Raises:
        SystemExit: if it fails; shows its output.
    """
    how = ["--jobs", str(jobs), "--num-threads", str(threads), "--json", str(out)]
    run_process(["distilmos", "plan", *options, *how])
    return {stage["stage"]: stage for stage in json.loads(out.read_text(encoding="utf-8"))}


def run_text(command: Sequence[str | Path | int], **environment: str) -> str:
    """Run a command; return its stdout.

    Raises:
        SystemExit: if it fails; shows its stderr.
    """
    words = [str(word) for word in command]
    done = subprocess.run(words, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{shlex.join(words)}\n{done.stderr[-3000:]}")
    return done.stdout


def parser(description: str | None, repeats: int) -> argparse.ArgumentParser:
    """Return a parser with the options of all benchmarks."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--repeats", type=int, default=repeats, help=f"runs of each side (default: {repeats})")
    options.add_argument(
        "--speech",
        type=Path,
        default=os.environ.get("SPEECH"),
        help="directory of recordings to cut the audio from (default: $SPEECH, else synthetic speech from eSpeak NG)",
    )
    return options
