"""Convert the encoder of the second iteration to the package's format, and report the progress of pretraining."""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from distilmos.data.datadir import read_data_dir
from distilmos.data.tables import read_lines
from distilmos.errors import run_main
from distilmos.files import write_text
from distilmos.markdown import markdown_table
from distilmos.provenance import commit, cpu_name
from distilmos.ssl.load import load_ssl
from distilmos.ssl.store import save_encoder

EVENT = re.compile(r"\[(\S+ \S+?),\d+\]\[(\w+)\]\[INFO\] - (\{\".*\})")
TIME = re.compile(r"\[(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)")
PAUSE = 600  # seconds between two lines of a log; a longer time counts as an interruption
ROWS = 12  # a table has ROWS to 2 * ROWS validations, if the log has as many
# The labels that an iteration predicts, in the order of task.labels in run.sh.
LABELS = {"first": ("sound",), "second": ("sound", "content")}


@dataclass
class Course:
    """The log of an iteration: events of epochs and of validations, and seconds of training."""

    train: list[dict[str, Any]] = field(default_factory=list)
    valid: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0


def main() -> None:
    """Read the command line; write the encoder and the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--expdir", type=Path, required=True, metavar="DIR", help="directory of both iterations")
    parser.add_argument("--dumpdir", type=Path, required=True, metavar="DIR", help="directory of the audio of stage 1")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="encoder to write")
    parser.add_argument("--page", type=Path, required=True, metavar="FILE", help="page to write")
    args = parser.parse_args()

    courses = {name: read_course(args.expdir / name / "log" / "hydra_train.log") for name in LABELS}
    summary = _summary(args.dumpdir, courses)
    encoder = load_ssl(args.expdir / "second" / "checkpoint_last.pt")
    save_encoder(encoder, args.out, half=True)
    shape = encoder.config
    lines = [
        "# A small HuBERT, pretrained on plain speech\n",
        f"Made by `./run.sh`; commit `{commit()}`; {cpu_name()}.\n",
        f"- encoder: {sum(p.numel() for p in encoder.parameters()) / 1e6:.2f} M parameters, {shape.num_layers} layers "
        f"of width {shape.embed_dim}; {args.out.name} (float16): {args.out.stat().st_size / 1e6:.1f} MB",
    ]
    for name in ("train", "valid"):
        data = read_data_dir(args.dumpdir / "raw" / name, rated=False)
        hours = sum(data.durations.values()) / 3600
        lines.append(f"- {name}: {len(data.utterances):,} recordings, {hours:.2f} h")
    lines += ["", summary]
    for name, course in courses.items():
        lines += [f"## Course of the {name} iteration\n", _course(course, LABELS[name])]
        quality = args.expdir / f"kmeans_{name}" / "quality.md"
        lines += [f"Its labels: {quality.read_text(encoding='utf-8')}"]
    write_text(args.page, "\n".join(lines))


def read_course(path: Path) -> Course:
    """Read fairseq's log of an iteration; a continued run appends to the same log."""
    course = Course()
    before: datetime | None = None
    for line in read_lines(path):
        stamp = TIME.match(line)
        if stamp is None:
            continue
        now = datetime.fromisoformat(stamp[1])
        if before is not None and (passed := (now - before).total_seconds()) < PAUSE:
            course.seconds += passed
        before = now
        event = EVENT.match(line)
        if event is not None and event[2] in ("train", "valid"):
            getattr(course, "valid" if event[2] == "valid" else "train").append(json.loads(event[3]))
    return course


def _summary(dumpdir: Path, courses: dict[str, Course]) -> str:
    rows = []
    for name, course in courses.items():
        last, held_out = course.train[-1], course.valid[-1]
        for number, label in enumerate(LABELS[name]):
            lines = read_lines(dumpdir / f"labels_{name}" / f"valid.{label}")
            counts = Counter(word for line in lines for word in line.split())
            rows.append(
                [
                    name,
                    last["train_num_updates"],
                    f"{course.seconds / 3600:.2f}",
                    label,
                    f"{100 * float(last[f'train_correct_m_{number}']):.1f} %",
                    f"{100 * float(held_out[f'valid_correct_m_{number}']):.1f} %",
                    f"{100 * max(counts.values()) / sum(counts.values()):.1f} %",
                    held_out[f"valid_loss_m_{number}"],
                ]
            )
    header = [
        "iteration",
        "updates",
        "hours",
        "labels",
        "masked accuracy, train",
        "held out",
        "most frequent label",
        "loss, held out (bits)",
    ]
    return markdown_table(header, rows)


def _course(course: Course, labels: Sequence[str]) -> str:
    step = max(1, len(course.valid) // ROWS)
    rows = []
    for event in course.valid[::-step][::-1]:
        row = [event["valid_num_updates"]]
        for number in range(len(labels)):
            row += [f"{100 * float(event[f'valid_correct_m_{number}']):.1f} %", event[f"valid_loss_m_{number}"]]
        rows.append(row)
    columns = [column for label in labels for column in (f"{label}: masked accuracy, held out", "loss (bits)")]
    return markdown_table(["updates", *columns], rows)


if __name__ == "__main__":
    run_main(main)
