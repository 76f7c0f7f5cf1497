"""Open a web page that scores uploaded or recorded speech.

The page listens on this machine alone (127.0.0.1) and sends nothing elsewhere. It needs the extra `web`:
pip install 'distilmos[web]'.
"""

from __future__ import annotations

import argparse

from distilmos.api import load_predictor
from distilmos.commands.options import add_device_option, add_scale_option, port
from distilmos.model.directory import DEFAULT
from distilmos.web.page import serve


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--model", default=DEFAULT, metavar="NAME", help=f"as in `distilmos predict` (default: {DEFAULT})"
    )
    add_scale_option(parser)
    add_device_option(parser)
    parser.add_argument("--port", type=port, default=7860, metavar="N", help="TCP port (default: 7860)")
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")


def run(args: argparse.Namespace) -> int:
    """Serve the page until interrupted."""
    predictor = load_predictor(args.model, args.device, scale=args.scale and tuple(args.scale))
    serve(predictor, f"DistilMOS: {predictor.model}", args.port, open_browser=not args.no_browser)
    return 0
