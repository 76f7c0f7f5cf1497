"""Write the files of a set for fairseq's HuBERT task: recordings, SET.tsv, and labels, SET.LABELS and dict.LABELS.txt.

The audio stays in the archive of stage 1, whose entries are WAV files. fairseq reads parts of a file if its name ends
in .zip, so a link with such a name is enough.
"""

from __future__ import annotations

import argparse
import struct
from pathlib import Path

from distilmos.data.archive import load_array, read_scp
from distilmos.data.audio import SAMPLE_RATE
from distilmos.data.datadir import DataDir, read_data_dir
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
        help="NAME LAYER DIR...: token ids of LAYER, one DIR for each data directory; several times",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="directory of the lists")
    args = parser.parse_args()

    args.out.mkdir(parents=True, exist_ok=True)
    sets = [read_data_dir(directory, rated=False) for directory in args.data]
    for name, layer, *directories in args.labels:
        if len(directories) != len(sets):
            parser.error(f"--labels {name}: {len(directories)} directories of tokens for {len(sets)} data directories")
        lines = []
        for data, tokens in zip(sets, directories, strict=True):
            path = Path(tokens) / f"layer{layer}.scp"
            found = read_scp(path)
            for utterance in data.utterances:
                if utterance not in found:
                    raise InputError(f"{path}: {utterance} of {data.path} has no labels")
                lines.append(" ".join(map(str, load_array(found[utterance]).tolist())))
        write_text(args.out / f"{args.set}.{name}", "\n".join(lines) + "\n")
        clusters = TokenInfo.read(directories[0]).clusters
        write_text(args.out / f"dict.{name}.txt", "".join(f"{label} 1\n" for label in range(clusters)))
    # Last, because later stages take this file as the sign that the lists are complete.
    write_text(args.out / f"{args.set}.tsv", "\n".join(list_audio(args.set, sets, args.out)) + "\n")


def list_audio(name: str, sets: list[DataDir], directory: Path) -> list[str]:
    """Return the lines of NAME.tsv (the directory, then the place of each recording), and make the links in them."""
    rows = [str(directory.resolve())]
    for number, data in enumerate(sets, start=1):
        # Not valid1.*: fairseq would validate on that as another set.
        linked = directory / f"audio{number}_{name}.zip"
        linked.unlink(missing_ok=True)
        linked.symlink_to((data.path / "wav.ark").resolve())
        for utterance in data.utterances:
            path, offset = data.wavs[utterance]
            if offset is None:
                raise InputError(f"{data.path / 'wav.scp'}: {utterance} is in no archive")
            samples = round(data.durations[utterance] * SAMPLE_RATE)
            rows.append(f"{linked.name}:{offset}:{wav_size(path, offset)}\t{samples}")
    return rows


def wav_size(path: Path, offset: int) -> int:
    """Return the size in bytes of the WAV file at `offset` of an archive: the size in its RIFF header, plus 8."""
    with path.open("rb") as stream:
        stream.seek(offset)
        tag, size = struct.unpack("<4sI", stream.read(8))
    if tag != b"RIFF":
        raise InputError(f"{path}: no WAV file at byte {offset}")
    return int(size) + 8


if __name__ == "__main__":
    run_main(main)
