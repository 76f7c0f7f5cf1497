"""Stage 0: fetch a file, and unpack it.

An interrupted transfer is continued; nothing is fetched that is there already. FILE and the directory of --unpack
appear only when they are complete and, with --md5 or --size, verified.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from distilmos.commands.options import positive_int
from distilmos.data.download import download, unpack


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("url", metavar="URL", help="http, https or file")
    parser.add_argument("file", metavar="FILE", type=Path, help="where to")
    parser.add_argument("--size", type=positive_int, metavar="BYTES", help="what it must have")
    parser.add_argument("--md5", metavar="HEX", help="checksum that it must have")
    parser.add_argument("--unpack", type=Path, metavar="DIR", help="unpack the archive there, unless DIR exists")
    parser.add_argument(
        "--nested", action="append", default=[], metavar="PATH", help="archive in the archive, to be unpacked too"
    )


def run(args: argparse.Namespace) -> int:
    """Fetch and unpack."""
    if args.unpack is not None and args.unpack.exists():
        print(f"{args.unpack}: exists, nothing to fetch")
        return 0
    fetched = download(args.url, args.file, size=args.size, md5=args.md5)
    print(f"{args.file}: " + ("fetched" if fetched else "is there already"))
    if args.unpack is not None:
        unpack(args.file, args.unpack, tuple(args.nested))
        print(f"{args.unpack}: unpacked")
    return 0
