"""What the packages of both tracks of the VoiceMOS Challenge 2022 share: their directories, lists and names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from distilmos.data.lists import RatedItem
from distilmos.errors import InputError

RATING_LISTS = {"train": "TRAINSET", "dev": "DEVSET", "test": "TESTSET"}
COLUMNS = ("system", "name", "rating", "ignored", "listener_info")  # of a rating list
GATHERING = """\
The archive does not contain the Blizzard Challenge wavs.
With a Blizzard licence, run the archive's scripts in {root}{scripts}
Then run stage 0 again with --db_root {root}. Or prepare only the existing wavs with --allow_partial true."""


def find_root(root: Path, track: str) -> Path:
    """Return the directory that contains DATA.

    Args:
        root: that directory, or the one above.
        track: main or ood, the name of the archive.

    Raises:
        InputError: if no such directory exists.
    """
    for candidate in (root, root / track, root / f"phase1-{track}"):
        if (candidate / "DATA" / "sets").is_dir():
            return candidate
    places = f"no DATA/sets, {track}/DATA/sets or phase1-{track}/DATA/sets"
    raise InputError(f"{root}: not an unpacked {track}.tar.gz: {places}")


def missing_wavs(root: Path, missing: Sequence[RatedItem], scripts: str = ".") -> str:
    """Return the number of missing wavs of each system, and how to get them.

    Args:
        root: the directory that contains DATA.
        missing: the recordings; at least one.
        scripts: scripts of the archive, if their names are known.
    """
    systems = Counter(item.system for item in missing)
    count = f"{len(missing):,} wavs of {len(systems)} systems are missing"
    listing = ", ".join(f"{system} ({number})" for system, number in sorted(systems.items()))
    return f"{root / 'DATA' / 'wav'}: {count}: {listing}\n{GATHERING.format(root=root, scripts=scripts)}"


def file_name(name: str) -> str:
    """Return the name of the wav; the out-of-domain lists omit `.wav`."""
    return name if name.endswith(".wav") else f"{name}.wav"


def system_of(name: str) -> str:
    """Return the system, the part of an utterance's name before the hyphen; its length differs."""
    return name.partition("-")[0]
