"""Stage 0: download a file and unpack it.

Continues an interrupted download; does not download an existing file again. FILE and the directory of --unpack appear
only when they are complete and, with --md5 or --size, verified.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from distilmos.commands.options import positive_int
from distilmos.data.download import download, unpack


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("url", metavar="URL", help="address with http, https or file")
    parser.add_argument("file", metavar="FILE", type=Path, help="file to write")
    parser.add_argument("--size", type=positive_int, metavar="BYTES", help="expected size")
    parser.add_argument("--md5", metavar="HEX", help="expected md5 checksum")
    parser.add_argument("--unpack", type=Path, metavar="DIR", help="unpack the archive to DIR, unless DIR exists")
    parser.add_argument(
        "--nested", action="append", default=[], metavar="PATH", help="archive inside the archive to unpack too"
    )


def run(args: argparse.Namespace) -> int:
    """Download and unpack."""
    if args.unpack is not None and args.unpack.exists():
        print(f"{args.unpack}: exists, nothing to download")
        return 0
    fetched = download(args.url, args.file, size=args.size, md5=args.md5)
    print(f"{args.file}: " + ("downloaded" if fetched else "already exists"))
    if args.unpack is not None:
        unpack(args.file, args.unpack, tuple(args.nested))
        print(f"{args.unpack}: unpacked")
    return 0
