"""Write what fairseq's HuBERT task reads of a set: SET.tsv (recordings), SET.km (their labels), and dict.km.txt.

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
    parser.add_argument("--raw", type=Path, required=True, metavar="DIR", help="data directory of stage 1")
    parser.add_argument("--tokens", type=Path, required=True, metavar="DIR", help="token ids of its frames")
    parser.add_argument("--layer", type=int, required=True, metavar="N", help="whose token ids are the labels")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to write")
    args = parser.parse_args()

    data = read_data_dir(args.raw, rated=False)
    tokens = read_scp(args.tokens / f"layer{args.layer}.scp")
    name = args.raw.name
    args.out.mkdir(parents=True, exist_ok=True)
    linked = args.out / f"{name}.zip"
    linked.unlink(missing_ok=True)
    linked.symlink_to((args.raw / "wav.ark").resolve())
    rows, labels = [str(args.out.resolve())], []
    for utterance in data.utterances:
        path, offset = data.wavs[utterance]
        if utterance not in tokens or offset is None:
            raise InputError(f"{args.tokens}: {utterance} has no labels, or no audio in an archive")
        samples = round(data.durations[utterance] * SAMPLE_RATE)
        rows.append(f"{linked.name}:{offset}:{wav_size(path, offset)}\t{samples}")
        labels.append(" ".join(map(str, load_array(tokens[utterance]).tolist())))
    write_text(args.out / f"{name}.tsv", "\n".join(rows) + "\n")
    write_text(args.out / f"{name}.km", "\n".join(labels) + "\n")
    clusters = TokenInfo.read(args.tokens).clusters
    write_text(args.out / "dict.km.txt", "".join(f"{label} 1\n" for label in range(clusters)))


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
