"""Run a Python script of a recipe with the interpreter of this command, which can import distilmos.

The python3 on PATH may be another one, for example where pipx or uv has installed distilmos.
"""

from __future__ import annotations

import argparse
import os
import sys

from distilmos.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.usage = "distilmos python SCRIPT [ARGUMENT...]"
    parser.add_argument("words", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """Become the interpreter."""
    if not args.words:
        raise InputError("expected SCRIPT [ARGUMENT...]")
    os.execv(sys.executable, [sys.executable, *args.words])
