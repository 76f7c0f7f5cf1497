"""Run egs/mini and end it at random moments, again and again; the results must be those of an undisturbed run.

Each time the same command is started again, as after a crash or a time limit. The moments lie in all stages in turn,
uniformly over the time that the stage took undisturbed. At the end, the command runs once more without a disturbance.
Then all scores, the model and RESULTS.md (but for commit, start and duration) must be equal byte by byte, and no
temporary file may be left.

--fills N fills the disk at N further moments, until the run has ended. WORK/disturbed is then a small tmpfs, which only
root can mount.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path

from session import processes_of

RECIPE = Path(__file__).resolve().parents[2] / "egs" / "mini"
TAG = "killed"
SETTINGS = ["max_steps=8", "warmup_steps=1", "eval_every=2", "checkpoint_every=1", "max_seconds=10"]
SETTINGS += ["batch_seconds=20", "num_workers=0", "hidden_dim=32"]
OPTIONS = [
    "--size",
    "small",
    "--clusters",
    "16",
    "--max_frames",
    "2000",
    "--nj",
    "2",
    "--num_threads",
    "1",
    "--tag",
    TAG,
]
OPTIONS += [word for setting in SETTINGS for word in ("--train_opts", setting)]
STARTS = re.compile(r"^\d{4}-\d\d-\d\d \S+ stage (\d): (?!done)")
DISK_BYTES = 400_000_000
COMPARED = ("results/*/utt2mos", "results/*/metrics.json", "final/*", "model/*", "RESULTS.md")
# Lines of RESULTS.md that tell when and where it was made.
OWN_LINES = re.compile(r"^- (Command|Commit|Data \(\w+\)|Started|Continued after step|Training): .*\n", re.MULTILINE)
TEMPORARY = re.compile(r"\.tmp|\.partial\b|~$|^shards$")


class Run:
    """A run of the recipe in a session of its own, with its output so far."""

    def __init__(self, root: Path, stage: int = 0) -> None:
        """Start it with a stage; its output is below `root`."""
        places = {"--datadir": "data", "--dumpdir": "dump", "--expdir": "exp"}
        directories = [word for option, name in places.items() for word in (option, str(root / name))]
        environment = os.environ | {
            "VIRTUAL_ENV": sys.prefix,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        self.process = subprocess.Popen(
            [RECIPE / "run.sh", *OPTIONS, *directories, "--stage", str(stage)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.output: list[str] = []
        self.began: dict[int, float] = {}  # stage -> monotonic time
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self.output.append(line)
                if match := STARTS.match(line):
                    self.began[int(match[1])] = time.monotonic()
                self._news.notify_all()
        with self._news:
            self.began[-1] = time.monotonic()  # the end
            self._news.notify_all()

    def reaches(self, stage: int, seconds: float) -> bool:
        """Wait until `seconds` after the start of a stage; return whether the run has not ended until then."""
        with self._news:
            self._news.wait_for(lambda: stage in self.began or -1 in self.began)
            if stage not in self.began:
                return False
            left = self.began[stage] + seconds - time.monotonic()
            return not self._news.wait_for(lambda: -1 in self.began, timeout=max(0.0, left))

    def send(self, number: signal.Signals) -> None:
        """Send a signal to all processes of the session, wherever they are in it."""
        for process, _ in processes_of(self.process.pid):
            with suppress(ProcessLookupError):  # it has just ended
                os.kill(process, number)

    def end(self) -> int:
        """Wait for the end; return the exit status."""
        status = self.process.wait()
        self._reader.join()
        return status


def durations(run: Run) -> dict[int, float]:
    """Return the seconds of each stage of a run that has ended."""
    moments = sorted(run.began.items(), key=lambda item: item[1])
    return {stage: after - at for (stage, at), (_, after) in pairwise(moments)}


def differences(expected: Path, found: Path) -> list[str]:
    """Return a line for each difference between the results of two runs, and for each temporary file."""
    faults = []
    for pattern in COMPARED:
        paths = sorted((expected / "exp" / TAG).glob(pattern))
        if not paths:
            faults.append(f"{expected}: has no exp/{TAG}/{pattern}")
        for path in paths:
            other = found / path.relative_to(expected)
            if not other.exists() or _comparable(path) != _comparable(other):
                faults.append(f"{other}: differs from {path}")
    faults += [f"{path}: is left" for path in sorted(found.rglob("*")) if TEMPORARY.search(path.name)]
    return faults


def _comparable(path: Path) -> bytes:
    content = path.read_bytes()
    if path.suffix == ".md":
        return OWN_LINES.sub("", content.decode()).encode()
    return content


@contextmanager
def filled(root: Path) -> Iterator[None]:
    """Fill the disk that holds `root` to the last byte, until the block ends."""
    ballast = root / "ballast"
    try:
        with ballast.open("wb", buffering=0) as stream:
            try:
                while True:
                    stream.write(bytes(1 << 20))
            except OSError:
                pass
            try:
                while True:
                    stream.write(bytes(512))
            except OSError:
                pass
        yield
    finally:
        ballast.unlink()


def main() -> None:
    """Run the chain."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, metavar="WORK", help="an empty or new directory")
    parser.add_argument("--kills", type=int, default=50, metavar="N", help="number of signals (default: 50)")
    parser.add_argument("--fills", type=int, default=0, metavar="N", help="number of full disks (default: 0)")
    parser.add_argument(
        "--from-stage", action="store_true", help="start with the stage that was disturbed, not with stage 0: quicker"
    )
    parser.add_argument("--signal", choices=("KILL", "TERM"), default="KILL", help="what is sent (default: KILL)")
    parser.add_argument("--seed", type=int, default=1, help="of the moments (default: 1)")
    args = parser.parse_args()
    work = args.work.resolve()  # the recipe runs in its own directory
    root = work / "disturbed"
    root.mkdir(parents=True)
    if args.fills:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", root], check=True)
    try:
        undisturbed = Run(work / "undisturbed")
        if undisturbed.end() != 0:
            sys.exit("".join(undisturbed.output))
        seconds = durations(undisturbed)
        print("stage: seconds", ", ".join(f"{stage}: {value:.1f}" for stage, value in seconds.items()), flush=True)
        faults = chain(args, root, seconds) or differences(work / "undisturbed", root)
        print("\n".join(faults) or "equal")
        sys.exit(1 if faults else 0)
    finally:
        if args.fills:
            subprocess.run(["umount", root], check=True)


def chain(args: argparse.Namespace, root: Path, seconds: dict[int, float]) -> list[str]:
    """Disturb runs, then run to the end; print a line for each. Return what went wrong."""
    generator = random.Random(args.seed)
    stages = sorted(seconds)
    first = 0
    for count in range(args.kills + args.fills):
        stage = stages[count % len(stages)]
        moment = generator.uniform(0, seconds[stage])
        run = Run(root, min(first, stage))
        what = "had ended"
        if run.reaches(stage, moment):
            if count < args.kills:
                what = args.signal
                run.send(signal.Signals[f"SIG{args.signal}"])
            else:
                what = "disk full"
                with filled(root):
                    run.end()
        status = run.end()
        said = next((line.strip() for line in reversed(run.output) if line.strip()), "")
        print(f"{count + 1}: stage {stage}, {moment:.1f} s: {what}, status {status}: {said}", flush=True)
        if what == "had ended" and status != 0:
            return ["".join(run.output)]
        if what == "disk full" and status != 0 and "No space left" not in "".join(run.output):
            return [f"no word of the full disk: {''.join(run.output)}"]
        first = stage if args.from_stage else 0
    last = Run(root, first)
    return [] if last.end() == 0 else ["".join(last.output)]


if __name__ == "__main__":
    main()
