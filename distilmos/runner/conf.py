"""Configuration of a site's scheduler, in the syntax of the configuration files of Kaldi's queue.pl and slurm.pl.

    command sbatch --partition=main          the command that submits a job
    option mem=* --mem=$0                    flags for `--mem 4G`; $0 is the value
    option gpu=0                             flags for `--gpu 0`: none
    default gpu=0                            value if the option is not given

Two kinds of lines do not exist in Kaldi:

    prologue module load cuda                a line of the job script, run before the command
    max_array_size 1000                      limit of elements in an array, if below the scheduler's own
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from distilmos.errors import InputError

_SETTING = re.compile(r"(\w+)=(\S*)\s*(.*)")
ANY = "*"


@dataclass
class SiteConf:
    """A configuration file.

    Attributes:
        path: the file, for messages.
        command: words of the submitting command.
        options: (option, value or "*") -> its flags, with $0 for the value.
        defaults: option -> value.
        prologue: shell lines at the start of the job script.
        max_array_size: limit of elements in an array; None for the scheduler's own limit.
    """

    path: Path
    command: list[str] = field(default_factory=list)
    options: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    defaults: dict[str, str] = field(default_factory=dict)
    prologue: list[str] = field(default_factory=list)
    max_array_size: int | None = None

    def flags(self, wanted: Mapping[str, str], defaults: bool = True) -> list[str]:
        """Return the flags of the submitting command for the given options.

        Args:
            wanted: option, with underscores, -> value.
            defaults: add the options of the `default` lines.

        Raises:
            InputError: if the file has no line for an option.
        """
        words = []
        for name, value in ((self.defaults if defaults else {}) | dict(wanted)).items():
            template = self.options.get((name, value), self.options.get((name, ANY)))
            if template is None:
                flag = f"--{name.replace('_', '-')} {value}"
                raise InputError(f"{self.path}: no line for {flag}; add 'option {name}=* ...'")
            words += [word.replace("$0", value) for word in template]
        return words


def read_conf(path: str | Path) -> SiteConf:
    """Read a configuration file.

    Raises:
        InputError: if the file is missing or unreadable, or a line is wrong.
    """
    conf = SiteConf(Path(path))
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: unreadable: {error}") from None
    for number, line in enumerate(lines, start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            try:
                _add_line(conf, *line.strip().partition(" ")[::2])
            except ValueError as error:
                raise InputError.at(path, number, str(error)) from None
    if not conf.command:
        raise InputError(f"{path}: no line 'command ...'")
    return conf


def _add_line(conf: SiteConf, keyword: str, rest: str) -> None:
    """Add one line to `conf`; raise ValueError if it is wrong."""
    if keyword == "prologue":
        conf.prologue.append(rest)  # shell text: a # may be part of a word
        return
    rest = re.sub(r"(^|\s)#.*", "", rest).strip()
    setting = _SETTING.fullmatch(rest)
    if keyword == "command":
        if conf.command:
            raise ValueError("second line 'command'")
        conf.command = shlex.split(rest)
        if not conf.command:
            raise ValueError("expected 'command PROGRAM ...'")
    elif keyword == "max_array_size":
        if not re.fullmatch("[1-9][0-9]*", rest):
            raise ValueError(f"expected 'max_array_size N', not {rest!r}")
        conf.max_array_size = int(rest)
    elif keyword in ("option", "default") and setting is None:
        raise ValueError(f"expected '{keyword} NAME=VALUE'")
    elif keyword == "option" and setting is not None:
        key = (setting[1], setting[2])
        if key in conf.options:
            raise ValueError(f"second line 'option {key[0]}={key[1]}'")
        conf.options[key] = shlex.split(setting[3])
    elif keyword == "default" and setting is not None:
        if setting[3]:
            raise ValueError(f"unexpected {setting[3]!r}")
        conf.defaults[setting[1]] = setting[2]
    else:
        raise ValueError(f"unknown keyword {keyword!r}: expected command, option, default, prologue or max_array_size")
