"""The `distilmos` command: find the subcommand, and run it."""

from __future__ import annotations

import argparse
import importlib
import sys

from distilmos import __version__
from distilmos.errors import run_command

# Groups as `distilmos --help` lists them, each in the order of the pipeline. The module of a command is imported only
# when it is called, so that `--help` and light commands do not wait for torch.
GROUPS = {
    "use": {
        "predict": "predict the MOS of audio files or a data directory (stage 6)",
        "calibrate": "fit the scores of a model to the scale of a listening test",
        "web": "score uploaded or recorded speech on a local web page",
        "pull": "download a model from the Hugging Face hub",
        "push": "upload a model to the Hugging Face hub",
        "import-official": "convert a checkpoint that the authors of DistilMOS released",
        "interpolate": "mix the fine-tuned encoder of a run with its pretrained one",
        "average": "average the weights of models (model soup)",
        "confidence": "compare signals of doubt of a model with its errors",
        "compare": "compare two results directories by a paired bootstrap",
        "gather": "compare several models and seeds on one page",
    },
    "data": {
        "download": "download and verify a file of a corpus",
        "import-ratings": "turn the export of a listening test into a data directory",
        "screen-ratings": "reject unreliable listeners and report what it changes",
        "validate-data": "check data directories and list every fault",
        "fix-data": "repair data directories",
        "combine-data": "join data directories",
        "subset-data": "select a part of a data directory",
        "split-data": "split a data directory, for example into train, dev and test",
        "summarize-data": "write a summary of each data directory (stage 0)",
    },
    "stages": {
        "fetch-ssl": "download an SSL encoder (stage 0)",
        "dump-audio": "convert audio to 16 kHz mono archives (stage 1)",
        "plan": "estimate the time, disk and memory of stages 2 to 6",
        "dump-feats": "sample hidden states of all layers (stage 2)",
        "learn-kmeans": "learn the k-means of one layer (stage 3)",
        "kmeans-table": "tabulate the quality of all k-means (stage 3)",
        "dump-tokens": "compute the token ids of all layers (stage 4)",
        "dump-pooled": "pool all layers over time, for reference scores (stage 4)",
        "train": "fine-tune on MOS and tokens (stage 5)",
        "predict-published": "score a data directory with a published model (stage 6)",
        "score": "compute MSE, LCC, SRCC and KTAU (stage 7)",
        "references": "score what a model is to be compared with (stage 7)",
        "analyze": "show what each encoder layer knows (stage 7)",
        "report": "write RESULTS.md and report.html (stage 7)",
        "export": "write a portable model directory (stage 8)",
    },
    "plumbing": {
        "renew": "prepare the output directory of a stage",
        "run": "run a command, or an array of jobs, and log it",
        "merge-archives": "join the archives of parallel jobs (stages 1, 2 and 4)",
        "sets": "print the names and paths of a recipe's sets for bash",
        "python": "run a script with the interpreter of distilmos",
    },
}
COMMANDS = [name for group in GROUPS.values() for name in group]


def main(argv: list[str] | None = None) -> int:
    """Run one subcommand; return the exit status: 0 (done), 1 (failed) or 2 (usage or bad input)."""
    arguments = sys.argv[1:] if argv is None else argv
    parser = _main_parser()
    if not arguments or arguments[0] in ("-h", "--help", "--version"):
        parser.parse_args(arguments or ["--help"])
    name = arguments[0]
    if name not in COMMANDS:
        parser.error(f"unknown command {name!r}; `distilmos --help` lists them")

    def run() -> int | None:
        module = importlib.import_module(f"distilmos.commands.{name.replace('-', '_')}")
        command = argparse.ArgumentParser(
            prog=f"distilmos {name}",
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
        status: int | None = module.run(command.parse_args(arguments[1:]))
        return status

    return run_command(f"distilmos {name}", run)


def _main_parser() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS))
    listing = "\n\n".join(
        "\n".join([f"{group}:", *(f"  {name:<{width}}  {text}" for name, text in commands.items())])
        for group, commands in GROUPS.items()
    )
    parser = argparse.ArgumentParser(
        prog="distilmos",
        usage="distilmos COMMAND [options]",
        description=f"MOS prediction of speech with layer-wise self-distillation.\n\n{listing}",
        epilog="`distilmos COMMAND --help` describes a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"distilmos {__version__}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
