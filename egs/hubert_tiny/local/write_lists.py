"""Write what fairseq's HuBERT task reads of a set: recordings, SET.tsv, and labels, SET.LABELS and dict.LABELS.txt.

The audio stays in the archive of stage 1, whose entries are WAV files: fairseq reads parts of a file whose name ends in
.zip, so that a link of such a name is enough.
"""

from __future__ import annotations

import argparse
import struct
from pathlib import Path

from distilmos.data.archive import load_array, read_scp
from distilmos.data.audio import SAMPLE_RATE
from distilmos.data.datadir import read_data_dir
from distilmos.errors import InputError, run_main
from distilmos.files import write_text
from distilmos.tokens.info import TokenInfo


def main() -> None:
    """Read the command line and write the lists of one set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", required=True, metavar="NAME", help="train or valid")
    parser.add_argument(
        "--data", type=Path, nargs="+", required=True, metavar="DIR", help="data directories with the same utterances"
    )
    parser.add_argument(
        "--labels",
        nargs="+",
        action="append",
        required=True,
        metavar="WORD",
        help="NAME LAYER DIR...: token ids of LAYER, for each data directory those of its DIR; several times",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to write")
    args = parser.parse_args()

    args.out.mkdir(parents=True, exist_ok=True)
    rows = [str(args.out.resolve())]
    for number, directory in enumerate(args.data, start=1):
        # Not after the set: fairseq takes all that begins with valid for sets to validate on.
        linked = args.out / f"audio{number}_{args.set}.zip"
        linked.unlink(missing_ok=True)
        linked.symlink_to((directory / "wav.ark").resolve())
        data = read_data_dir(directory, rated=False)
        for utterance in data.utterances:
            path, offset = data.wavs[utterance]
            if offset is None:
                raise InputError(f"{directory}: {utterance} is in no archive")
            samples = round(data.durations[utterance] * SAMPLE_RATE)
            rows.append(f"{linked.name}:{offset}:{wav_size(path, offset)}\t{samples}")
    write_text(args.out / f"{args.set}.tsv", "\n".join(rows) + "\n")
    for name, layer, *directories in args.labels:
        lines = []
        for directory, tokens in zip(args.data, directories, strict=True):
            found = read_scp(Path(tokens) / f"layer{layer}.scp")
            for utterance in read_data_dir(directory, rated=False).utterances:
                if utterance not in found:
                    raise InputError(f"{tokens}: {utterance} has no labels")
                lines.append(" ".join(map(str, load_array(found[utterance]).tolist())))
        write_text(args.out / f"{args.set}.{name}", "\n".join(lines) + "\n")
        clusters = TokenInfo.read(directories[0]).clusters
        write_text(args.out / f"dict.{name}.txt", "".join(f"{label} 1\n" for label in range(clusters)))


def wav_size(path: Path, offset: int) -> int:
    """Return the bytes of the WAV file at `offset` of an archive: what its RIFF header says, and the header's start."""
    with path.open("rb") as stream:
        stream.seek(offset)
        tag, size = struct.unpack("<4sI", stream.read(8))
    if tag != b"RIFF":
        raise InputError(f"{path}: no WAV file at byte {offset}")
    return int(size) + 8


if __name__ == "__main__":
    run_main(main)
