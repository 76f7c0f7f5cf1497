"""Predict the MOS of recordings (stage 6).

An input is an audio file (wav, flac, ogg, opus, mp3, ...), a directory (searched with what is below it), a list of
files (.txt or .lst, a path on each line), a wav.scp, or a data directory of Kaldi's kind. Any rate is resampled
to 16 kHz, and channels are averaged. A recording longer than --window is scored in overlapping windows of that length,
and its score is the mean of all its frames. A score depends on the recording alone, not on other inputs or their order.

--out FILE.csv or FILE.jsonl has the recordings in the order of the inputs, with the reason where one cannot be used;
any other name is a Kaldi-style table `utterance MOS` without those. Without --out, lines are printed. The exit status
is 1 if any recording could not be used. Meanwhile scores are in OUT.partial, from which --resume goes on after an
interruption.
"""

from __future__ import annotations

import argparse
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch

from distilmos import __version__
from distilmos.commands.options import add_forward_options, positive_float, positive_int
from distilmos.data.recordings import Recording, find_recordings
from distilmos.data.tables import as_text
from distilmos.errors import InputError
from distilmos.inference.frames import write_frames, write_plot
from distilmos.inference.output import Journal, record
from distilmos.inference.predict import PredictOptions, Score, predict
from distilmos.memory import use_huge_pages
from distilmos.model.networks import MOSNetwork
from distilmos.model.package import DEFAULT, find_model, load_model_dir
from distilmos.ssl.encoder import weights_hash
from distilmos.ssl.forward import choose_device


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    defaults = PredictOptions()
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="audio file, directory, list or wav.scp")
    parser.add_argument(
        "--model",
        default=DEFAULT,
        metavar="NAME",
        help="name of a model that ships with distilmos, model directory such as exp/<tag>/model, or hub id OWNER/NAME "
        f"(default: {DEFAULT})",
    )
    parser.add_argument(
        "--corpus", metavar="NAME", help="corpus on whose scale scores shall be, for a model trained on several"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="file to write: .csv, .jsonl or utt2mos")
    parser.add_argument("--resume", action="store_true", help="go on from OUT.partial of an interrupted run")
    parser.add_argument(
        "--frames", type=Path, metavar="DIR", help="write the scores of all frames, a table a recording"
    )
    parser.add_argument(
        "--plots", type=Path, metavar="DIR", help="draw them over the spectrogram, a picture a recording"
    )
    parser.add_argument(
        "--window",
        type=positive_float,
        default=defaults.window_seconds,
        metavar="S",
        help=f"seconds; longer recordings are scored in windows of this length (default: {defaults.window_seconds:g})",
    )
    parser.add_argument(
        "--workers",
        type=positive_int,
        default=defaults.workers,
        metavar="N",
        help=f"threads that read audio (default: {defaults.workers})",
    )
    add_forward_options(parser, defaults.batch_seconds)


def run(args: argparse.Namespace) -> int:
    """Predict and write."""
    use_huge_pages()
    recordings = find_recordings(args.inputs)
    device = choose_device(args.device)
    model = load_model_dir(find_model(args.model)).to(device)
    options = PredictOptions(
        batch_seconds=args.batch_seconds,
        window_seconds=args.window,
        workers=args.workers,
        corpus=args.corpus,
    )
    failed = 0
    if args.out is None:
        for score in _scores(model, recordings, device, options, args):
            if score.error:
                failed += 1
                print(as_text(score.error), file=sys.stderr)
            else:
                print(f"{as_text(score.utterance)} {score.mos:.4f}", flush=True)
    else:
        journal = _open_journal(args, model, options)
        try:
            rest = _after(journal, recordings)
            for score in _scores(model, rest, device, options, args):
                journal.add(record(score))
                if score.error:
                    print(as_text(score.error), file=sys.stderr)
            total, failed = journal.done, journal.finish()
        finally:
            journal.close()
        print(f"{args.out}: {total - failed} recordings")
    if failed:
        print(f"distilmos predict: {failed} recordings could not be used", file=sys.stderr)
    return 1 if failed else 0


def _open_journal(args: argparse.Namespace, model: MOSNetwork, options: PredictOptions) -> Journal:
    identity = {
        "distilmos": __version__,
        "model": weights_hash(model),
        "window_seconds": options.window_seconds,
        "corpus": options.corpus,
    }
    return Journal(args.out, identity, resume=args.resume)


def _after(journal: Journal, recordings: Iterator[Recording]) -> Iterator[Recording]:
    """Yield the recordings that the journal does not have yet; it must have the first ones."""
    for number, name in enumerate(journal.names(), start=1):
        recording = next(recordings, None)
        if recording is None or recording.utterance != name:
            raise InputError(f"{journal.path}: recording {number} was {name}: the inputs have changed; remove the file")
        journal.admit(name)
    for recording in recordings:
        journal.admit(recording.utterance)
        yield recording


def _scores(
    model: MOSNetwork,
    recordings: Iterable[Recording],
    device: torch.device,
    options: PredictOptions,
    args: argparse.Namespace,
) -> Iterator[Score]:
    """Yield the scores, of which tables and pictures are written, too, where they are asked for."""
    waiting: deque[Recording] = deque()

    def noted() -> Iterator[Recording]:
        for recording in recordings:
            waiting.append(recording)
            yield recording

    for score in predict(model, noted(), device, options):
        recording = waiting.popleft()
        if not score.error and args.frames is not None:
            write_frames(args.frames, score)
        if not score.error and args.plots is not None:
            write_plot(args.plots, score, recording)
        yield score
