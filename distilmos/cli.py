"""The `distilmos` console script: finds the subcommand, turns errors into one line and an exit status."""

from __future__ import annotations

import argparse
import importlib
import os
import sys

from distilmos import __version__
from distilmos.errors import FailedError, InputError

# In the order in which a recipe uses them. The module of a command is imported only when it is called, so that
# `--help` and light commands do not wait for torch.
COMMANDS = {
    "download": "stage 0: fetch a corpus or a checkpoint, verified",
    "validate-data": "check a Kaldi-style data directory and name every fault",
    "fetch-ssl": "stage 0: fetch an SSL encoder that is known by name",
    "summarize-data": "stage 0: a card of each data directory",
    "fix-data": "repair a data directory",
    "combine-data": "join data directories",
    "subset-data": "a part of a data directory",
    "split-data": "a data directory into train, dev and test",
    "dump-audio": "stage 1: 16 kHz mono audio of a data directory into one archive",
    "plan": "before stage 2: time, disk and memory that the stages will take",
    "dump-feats": "stage 2: hidden states of all layers, frames sampled for clustering",
    "learn-kmeans": "stage 3: k-means of one layer",
    "kmeans-table": "stage 3: one quality table of all layers",
    "dump-tokens": "stage 4: token ids of all layers",
    "merge-archives": "stages 1, 2, 4: join the archives of parallel jobs",
    "train": "stage 5: multi-task fine-tuning",
    "predict": "stage 6: predict the MOS of audio files or a data directory",
    "score": "stage 7: MSE, LCC, SRCC, KTAU with confidence intervals",
    "compare": "paired bootstrap between two results directories",
    "analyze": "stage 7: what each encoder layer knows, before and after fine-tuning",
    "report": "stage 7: RESULTS.md and report.html of an experiment",
    "gather": "one page of several models and seeds, with means and differences",
    "export": "stage 8: one portable model directory",
    "web": "a local page to drop or record files and see their scores",
    "push": "a model directory to the Hugging Face hub",
    "pull": "a model directory from the Hugging Face hub",
    "import-official": "a checkpoint that the authors of DistilMOS released as a model directory",
    "renew": "make the directory of a stage ready: empty, or as it was left half-way",
    "run": "run a command, or an array of jobs, and log it",
    "sets": "print names and paths of a recipe's sets for bash",
    "python": "run a script with the interpreter of distilmos",
}


def main(argv: list[str] | None = None) -> int:
    """Run one subcommand; return the exit status 0 (done), 1 (failed) or 2 (usage or bad input)."""
    arguments = sys.argv[1:] if argv is None else argv
    parser = _main_parser()
    if not arguments or arguments[0] in ("-h", "--help", "--version"):
        parser.parse_args(arguments or ["--help"])
    name = arguments[0]
    if name not in COMMANDS:
        parser.error(f"unknown command {name!r}; `distilmos --help` lists them")
    try:
        module = importlib.import_module(f"distilmos.commands.{name.replace('-', '_')}")
        command = argparse.ArgumentParser(
            prog=f"distilmos {name}",
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
        status = module.run(command.parse_args(arguments[1:]))
        return int(status or 0)
    except InputError as error:
        print(f"distilmos {name}: error: {error}", file=sys.stderr)
        return 2
    except FailedError as error:
        print(f"distilmos {name}: failed: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("distilmos"):
            raise
        extra = "web" if error.name == "gradio" else "recipes"
        message = f"needs the Python package {error.name}: pip install 'distilmos[{extra}]'"
        print(f"distilmos {name}: error: {message}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader of our output went away (`distilmos ... | head`): nothing is left to say to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        # A full disk, a directory that may not be written: the message of the system names the file.
        print(f"distilmos {name}: failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _main_parser() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS))
    listing = "\n".join(f"  {name:<{width}}  {text}" for name, text in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="distilmos",
        usage="distilmos COMMAND [options]",
        description="MOS prediction with layer-wise self-distillation.\n\n"
        f"commands, in the order of a recipe:\n{listing}",
        epilog="`distilmos COMMAND --help` describes one command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"distilmos {__version__}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
