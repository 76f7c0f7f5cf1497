"""Predict the MOS of recordings (stage 6).

An input is an audio file (wav, flac, ogg, opus, mp3, ...; with ffmpeg on PATH also m4a, mp4, webm, aac, wma, ...), a
directory (searched with its subdirectories), a list of files (.txt or .lst, one path per line), a CSV or TSV file with
a column of paths (--column), a wav.scp, a Kaldi or ESPnet data directory, a pipe such as <(sox ...) with the audio of
one recording, or - for one recording on standard input. Of a data directory, only wav.scp and `segments` are read; with
`segments`, each segment is scored. A wav.scp given by itself means whole recordings. Pipes in it are refused;
`distilmos dump-audio --execute-pipes` runs them.

Audio of any sampling rate is resampled to 16 kHz; channels are averaged, unless --channel chooses one. A recording
longer than --window is scored in overlapping windows of that length; its score is the mean over all its frames. A score
depends on the recording alone, not on the other inputs. A warning names each recording that is silent or clipped, whose
channels cancel, whose header gives a wrong size, or that is unlike the training data of the model. A model that can
tell gives each recording a `novelty`, a column of .csv and .jsonl: above 1, it exceeds that of 99 % of the training
data.

--out FILE.csv or FILE.jsonl lists the recordings in the order of the inputs, with the reason where one cannot be used.
Any other name is written as a Kaldi-style table `utterance MOS` without those. Of a model with several targets, this
table holds the first, and utt2TARGET beside it each further one. Without --out, the scores are printed.
OUT.partial holds the scores until all are done; --resume continues an interrupted run from it, unless a recording has
changed meanwhile. If OUT is a pipe or a device such as /dev/stdout, the scores are written into it at the end, and
--resume is not possible.

Several jobs can share the inputs: each runs the same command with --shard I/N, and then --join N in its place writes
OUT, in the order of the inputs:
  distilmos run JOB=1:16 log/predict.JOB.log distilmos predict speech/ --out scores.csv --resume --shard JOB/16
  distilmos predict speech/ --out scores.csv --join 16

exit status:
  0   all recordings are scored; of a shard: all are done
  1   some could not be used; --join says so for all shards
  2   usage or bad input
  75  with --resume: stopped by SIGTERM or SIGUSR1; run again to continue
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from tqdm import tqdm

from distilmos.commands.options import add_forward_options, add_scale_option, positive_float, positive_int
from distilmos.data.recordings import find_recordings
from distilmos.data.tables import as_text
from distilmos.errors import InputError, InputWarning
from distilmos.files import written_in_place
from distilmos.inference.frames import output_name, write_frames, write_plot
from distilmos.inference.output import Shard
from distilmos.inference.predict import PredictOptions, Score, predict
from distilmos.inference.progress import with_progress
from distilmos.inference.runtime import RUNTIMES, load_runtime
from distilmos.inference.tofile import FileJob, predict_to_file, take_share
from distilmos.memory import use_huge_pages
from distilmos.model.calibration import find_calibration
from distilmos.model.directory import DEFAULT, find_model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    defaults = PredictOptions()
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="audio file, directory, list, CSV, wav.scp, or -")
    parser.add_argument(
        "--column", metavar="NAME", help="column of paths in CSV and TSV files; relative to the directory of the file"
    )
    parser.add_argument(
        "--model",
        default=DEFAULT,
        metavar="NAME",
        help="name of a model that ships with distilmos, model directory such as exp/<tag>/model, or hub id OWNER/NAME "
        f"(default: {DEFAULT})",
    )
    parser.add_argument(
        "--corpus", metavar="NAME", help="add the offset of this corpus, for a model trained on several"
    )
    parser.add_argument(
        "--calibrated",
        metavar="NAME",
        help="map scores to the scale of a listening test, by the calibration NAME of the model (distilmos calibrate)",
    )
    parser.add_argument(
        "--channel",
        type=positive_int,
        metavar="N",
        help="score channel N, counted from 1 (default: the mean of all)",
    )
    add_scale_option(parser)
    parser.add_argument("--out", type=Path, metavar="FILE", help="file to write: .csv, .jsonl or utt2mos")
    parser.add_argument("--resume", action="store_true", help="continue an interrupted run from OUT.partial")
    shared = parser.add_mutually_exclusive_group()
    shared.add_argument("--shard", type=_shard, metavar="I/N", help="score every Nth recording, from the Ith on")
    shared.add_argument("--join", type=positive_int, metavar="N", help="write OUT from the scores of N shards")
    parser.add_argument("--frames", type=Path, metavar="DIR", help="write the frame scores, one table per recording")
    parser.add_argument(
        "--plots", type=Path, metavar="DIR", help="plot the frame scores over the spectrogram, one plot per recording"
    )
    parser.add_argument(
        "--window",
        type=positive_float,
        default=defaults.window_seconds,
        metavar="S",
        help=f"score recordings longer than S seconds in windows of S seconds (default: {defaults.window_seconds:g})",
    )
    parser.add_argument(
        "--workers",
        type=positive_int,
        default=defaults.workers,
        metavar="N",
        help=f"number of threads that read audio (default: {defaults.workers})",
    )
    parser.add_argument(
        "--runtime",
        choices=RUNTIMES,
        default="auto",
        help="onnx computes on CPUs, with the model.onnx of the model; torch also computes on GPUs; auto takes torch "
        "if the model has no model.onnx, or if there is a GPU and torch, otherwise onnx (default: auto)",
    )
    add_forward_options(parser, defaults.batch_seconds)


def _shard(text: str) -> Shard:
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count) <= sys.maxsize):
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N, such as 2/16")
    return Shard(int(number), int(count))


def run(args: argparse.Namespace) -> int:
    """Predict, then print the scores or write them to a file."""
    use_huge_pages()
    if (args.shard or args.join) and (args.out is None or written_in_place(args.out)):
        raise InputError("--shard and --join need --out FILE, which is a regular file")
    recordings = find_recordings(args.inputs, args.column)
    runtime = load_runtime(args.model, args.runtime, args.device)
    print(f"distilmos predict: model {runtime.info.label}", file=sys.stderr)
    options = PredictOptions(
        batch_seconds=args.batch_seconds,
        window_seconds=args.window,
        workers=args.workers,
        corpus=args.corpus,
        channel=args.channel,
        scale=args.scale and tuple(args.scale),
        calibration=args.calibrated and find_calibration(find_model(args.model), args.calibrated, runtime.info),
    )
    if options.calibration is not None:
        print(f"scores are {options.calibration.text}", file=sys.stderr)
    if args.out is None:
        failed = 0
        for score in _with_frames(predict(runtime, recordings, options), args):
            if score.error:
                failed += 1
            else:
                values = " ".join(f"{value:.4f}" for value in score.scores.values())
                print(f"{as_text(score.utterance)} {values}", flush=True)
    else:
        job = FileJob(args.out, args.inputs, args.resume, args.shard, args.join or 0)
        total, failed = predict_to_file(runtime, recordings, options, job, partial(_watch, args))
        # The scores may have gone to standard output.
        where = sys.stderr if written_in_place(args.out) else sys.stdout
        print(f"{as_text(str(job.written))}: {total - failed} recordings", file=where)
    if failed:
        print(f"distilmos predict: {failed} recordings could not be used", file=sys.stderr)
    return 1 if failed and not args.shard else 0


def _watch(args: argparse.Namespace, scores: Iterable[Score], done: int) -> Iterator[Score]:
    """Show the progress on a terminal."""
    scores = _with_frames(scores, args)
    if sys.stderr.isatty():
        with warnings.catch_warnings(action="ignore", category=InputWarning):  # shown when they are scored
            total = sum(1 for _ in take_share(find_recordings(args.inputs, args.column), args.shard))
        scores = with_progress(scores, done, total)
    return scores


def _with_frames(scores: Iterable[Score], args: argparse.Namespace) -> Iterator[Score]:
    """Print the error of each score, or write the table and plot that --frames and --plots ask for; pass it on."""
    written: dict[Path, str] = {}
    for score in scores:
        if score.error:
            tqdm.write(as_text(score.error), file=sys.stderr)  # above the line of progress, if one is shown
        elif args.frames is not None or args.plots is not None:
            name = output_name(score.utterance, "")
            if written.setdefault(name, score.utterance) != score.utterance:
                raise InputError(f"{as_text(score.utterance)}: {written[name]} has the same name in the output: {name}")
            if args.frames is not None:
                write_frames(args.frames, score)
            if args.plots is not None:
                write_plot(args.plots, score)
        yield score
