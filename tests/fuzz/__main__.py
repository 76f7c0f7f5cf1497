"""Fuzz the readers for a while: `PYTHONPATH=tests python -m fuzz --seconds 3600`, or `make -C tools fuzz`.

Each reader gets its share of the time. The same seed gives the same inputs. For each distinct finding, the input and
the traceback are in a directory below --out, which --reproduce runs again. The exit status is 1 if there are findings.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from distilmos.data import ffmpeg

from .check import WAITS, Finding, Outcome, check, check_directory, peak_memory, temporary_root, write_files
from .mutations import Files
from .readers import READERS, make_input, seeds

DIES_AFTER = 2 * WAITS  # a reader that blocks in a library ends the process
HEADER = ("reader", "inputs", "accepted", "findings", "seconds", "longest ms", "peak MiB")


@dataclass
class Count:
    """Counts for one reader.

    Attributes:
        inputs: number of inputs read.
        accepted: how many raised nothing.
        findings: number of findings, also equal ones.
        seconds: longest time that the reader took for an input.
        memory: largest growth of the memory by an input, in bytes.
        resident: largest memory of the process with an input, in bytes, also while it was made.
        spent: seconds for all inputs.
    """

    inputs: int = 0
    accepted: int = 0
    findings: int = 0
    seconds: float = 0.0
    memory: int = 0
    resident: int = 0
    spent: float = 0.0

    def add(self, outcome: Outcome, resident: int, spent: float) -> None:
        """Count an input."""
        self.inputs += 1
        self.accepted += outcome.accepted
        self.findings += len(outcome.findings)
        self.seconds = max(self.seconds, outcome.seconds)
        self.memory = max(self.memory, outcome.memory)
        self.resident = max(self.resident, resident)
        self.spent += spent

    def join(self, other: Count) -> None:
        """Add the counts of another process."""
        for each in fields(self):
            a, b = getattr(self, each.name), getattr(other, each.name)
            setattr(self, each.name, max(a, b) if each.name in ("seconds", "memory", "resident") else a + b)


def keep(out: Path, name: str, number: int, files: Files, finding: Finding) -> None:
    """Write a finding and its input, unless an equal one is there."""
    directory = out / "".join(c if c.isalnum() or c in "_-." else "_" for c in f"{name} {finding.signature}")[:150]
    if directory.exists():
        with (directory / "numbers").open("a") as stream:
            stream.write(f"{number}\n")
        return
    temporary = out / f".{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    write_files(temporary, files)
    about = {"reader": name, "number": number, **asdict(finding)}
    (temporary / "finding.json").write_text(json.dumps(about, indent=2))
    (temporary / "traceback.txt").write_text(finding.trace, encoding="utf-8", errors="backslashreplace")
    try:
        temporary.rename(directory)
    except OSError:  # the other process has it now
        shutil.rmtree(temporary)
        return
    print(f"{name} {number}: {finding.kind} {finding.what:.150} {finding.where}", flush=True)


def work(names: list[str], seconds: float, seed: int, first: int, step: int, out: Path) -> None:
    """Fuzz in this process: inputs number `first`, `first + step`, ... of each reader."""
    state = out / f"state{first % step}.json"
    counts = {name: Count() for name in names}
    numbers = dict.fromkeys(names, first)
    if state.exists():  # this process replaces one that died
        stored = json.loads(state.read_text())
        counts = {name: Count(**values) for name, values in stored["counts"].items()}
        numbers = stored["numbers"]
        name, number = stored["running"]
        finding = Finding(
            "died", f"{stored.get('status')}: the process", name, (out / f"log{first % step}").read_text()[-20_000:]
        )
        keep(out, name, number, make_input(name, seed, number), finding)
        counts[name].findings += 1
        numbers[name] += step
        seconds -= stored["elapsed"]
    crashes = (out / f"log{first % step}").open("a")  # not the standard error, which is discarded while a reader runs
    faulthandler.enable(crashes)
    start = time.monotonic()
    while time.monotonic() - start < seconds:
        name = min(names, key=lambda each: counts[each].spent / READERS[each].share)
        number = numbers[name]
        seeds(name)  # made once, outside of the time of the first input
        began = time.monotonic()
        files = make_input(name, seed, number)
        resident = peak_memory()
        shown = {"counts": {n: asdict(c) for n, c in counts.items()}, "numbers": numbers, "running": [name, number]}
        state.write_text(json.dumps(shown | {"elapsed": began - start}))
        faulthandler.dump_traceback_later(DIES_AFTER, exit=True, file=crashes)
        outcome = check(READERS[name], files)
        faulthandler.cancel_dump_traceback_later()
        for finding in outcome.findings:
            keep(out, name, number, files, finding)
        counts[name].add(outcome, max(resident, peak_memory()), time.monotonic() - began)
        numbers[name] += step
    shown = {
        "counts": {n: asdict(c) for n, c in counts.items()},
        "numbers": numbers,
        "running": None,
        "elapsed": seconds,
    }
    state.write_text(json.dumps(shown))


def lead(args: argparse.Namespace) -> int:
    """Start the processes, start those again that die, and print the counts."""
    out: Path = args.out
    out.mkdir(parents=True, exist_ok=True)
    for path in out.glob("state*.json"):
        path.unlink()
    command = [sys.executable, "-m", "fuzz", *sys.argv[1:], "--out", str(out), "--first"]
    end = time.monotonic() + args.seconds + 60

    def start(first: int) -> subprocess.Popen[bytes]:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}  # torch would start a thread for each core
        with (out / f"log{first % args.jobs}").open("wb") as log:
            return subprocess.Popen([*command, str(first)], stderr=log, stdin=subprocess.DEVNULL, env=environment)

    running = {first: start(first) for first in range(args.start, args.start + args.jobs)}
    while running:
        time.sleep(0.5)
        for first, process in list(running.items()):
            status = process.poll()
            if status is None:
                continue
            state = out / f"state{first % args.jobs}.json"
            if status == 0 or not state.exists() or time.monotonic() > end:
                if status:
                    print((out / f"log{first % args.jobs}").read_text()[-3000:], file=sys.stderr)
                del running[first]
                continue
            state.write_text(json.dumps(json.loads(state.read_text()) | {"status": status}))
            running[first] = start(first)
    return summarise(out, args.names)


def summarise(out: Path, names: list[str]) -> int:
    """Print the counts of all processes; return 1 if there are findings, else 0."""
    counts = {name: Count() for name in names}
    for path in out.glob("state*.json"):
        for name, values in json.loads(path.read_text())["counts"].items():
            counts[name].join(Count(**values))
    rows = [HEADER]
    for name, count in counts.items():
        accepted = f"{100 * count.accepted / max(1, count.inputs):.0f} %"
        numbers = (count.spent, 1000 * count.seconds, count.memory / (1 << 20))
        rows.append((name, f"{count.inputs}", accepted, f"{count.findings}", *(f"{number:.0f}" for number in numbers)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print(
            "  ".join(
                cell.ljust(width) if not i else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
        )
    places = Counter(json.loads(path.read_text())["where"] for path in out.glob("*/finding.json"))
    for place, number in places.most_common():
        print(f"{number} at {place}")
    total = Count()
    for count in counts.values():
        total.join(count)
    print(
        f"{total.inputs} inputs in {total.spent:.0f} s, largest process {total.resident / (1 << 20):.0f} MiB; "
        f"{places.total()} distinct findings in {out}"
    )
    return 1 if places else 0


def reproduce(directory: Path) -> int:
    """Run the reader of a finding on its input again, and print what it does; return 1 if it still does it, else 0."""
    name = json.loads((directory / "finding.json").read_text())["reader"]
    with temporary_root() as temporary:
        for part in ("input", "outside"):
            shutil.copytree(directory / part, Path(temporary) / part)
        outcome = check_directory(READERS[name], Path(temporary).resolve())
    print(f"{name}: {'accepted' if outcome.accepted else 'refused: ' + outcome.refusal:.1000}")
    for finding in outcome.findings:
        print(f"{finding.kind}: {finding.what} {finding.where}\n{finding.trace}")
    return 1 if outcome.findings else 0


def main() -> int:
    """Read the command line."""
    ffmpeg.available = lambda: False  # the harness counts starting a program as a finding
    parser = argparse.ArgumentParser(
        prog="python -m fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="READER", help=f"default: all of {', '.join(READERS)}")
    parser.add_argument("--seconds", type=float, default=60.0, help="default: %(default)s")
    parser.add_argument("--jobs", type=int, default=2, help="processes; default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of all inputs; default: %(default)s")
    parser.add_argument(
        "--start", type=int, default=0, metavar="N", help="number of the first input; default: %(default)s"
    )
    parser.add_argument("--out", type=Path, default=Path("fuzz_findings"), metavar="DIR", help="default: %(default)s")
    parser.add_argument("--reproduce", type=Path, metavar="DIR", help="run a finding of --out again instead")
    parser.add_argument("--first", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.names = args.names or list(READERS)
    if unknown := [name for name in args.names if name not in READERS]:
        parser.error(f"unknown reader {unknown[0]!r}")
    if args.reproduce is not None:
        return reproduce(args.reproduce)
    if args.first is None:
        return lead(args)
    work(args.names, args.seconds, args.seed, args.first, args.jobs, args.out.resolve())
    return 0


if __name__ == "__main__":
    sys.exit(main())
