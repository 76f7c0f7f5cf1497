"""Text files: Kaldi-style tables (`key value...` lines, UTF-8, sorted by key in the C locale), JSON and YAML."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml

from distilmos.errors import InputError, raise_faults
from distilmos.files import write_text

# Kaldi's separators between key and value.
BLANKS = " \t"
SEPARATOR = re.compile(f"[{BLANKS}]+")
MAX_YAML = 1 << 16  # characters of a YAML file: PyYAML needs up to the square of the length
MAX_NODES = 10000  # values in a YAML file: a few nested aliases can stand for more than memory holds

V = TypeVar("V")


def c_locale_key(key: str) -> bytes:
    """Return the sort key that orders strings as `LC_ALL=C sort` does."""
    return key.encode("utf-8", "surrogateescape")


def as_text(name: str) -> str:
    """Escape the bytes of a file name that are not UTF-8, so that it can be written as text."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def is_utf8(text: str) -> bool:
    """Return whether `text` is valid UTF-8; a file name may have other bytes (surrogates in Python)."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def read_lines(path: str | Path) -> list[str]:
    """Return the lines of a UTF-8 text file without line ends; accept a byte order mark and CRLF.

    Raises:
        InputError: if the file is missing or is not UTF-8.
    """
    path = Path(path)
    try:
        # Not splitlines(): it also splits at separators such as U+2028, which would give wrong line numbers.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
        return lines if lines[-1] else lines[:-1]
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a directory, not a file") from None
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise InputError.at(path, line, "not UTF-8 text") from None


def read_json(path: str | Path, kind: Any = Any) -> Any:
    """Read a JSON file; see `parse_json`.

    Raises:
        InputError: if the file is missing, is not JSON in UTF-8, or does not hold a `kind`.
    """
    return parse_json("\n".join(read_lines(path)), path, kind)


def parse_json(text: str | bytes, path: str | Path, kind: Any = Any, line: int | None = None) -> Any:
    """Convert JSON text to a type that pydantic knows, such as a dataclass, or to plain types.

    Args:
        text: the text; bytes must be UTF-8.
        path: file of the text, for errors.
        kind: the type.
        line: line of the text in the file, if the text is not the whole file.

    Raises:
        InputError: if `text` is not JSON, or not a `kind`.
    """
    where = str(path) if line is None else f"{path}:{line}"
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError.at(path, line or error.lineno, f"not JSON: {error.msg}") from None
    except (ValueError, RecursionError) as error:  # not UTF-8, an integer of over 4300 digits, deep nesting
        raise InputError(f"{where}: not JSON: {error}") from None
    if kind is Any:
        return value
    # Imported here: commands that only read tables start faster without it.
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        raise InputError(f"{': '.join([where, *map(str, fault['loc'])])}: {fault['msg']}") from None


class _YamlLoader(yaml.SafeLoader):
    """Reads numbers as YAML 1.2 does: PyYAML reads 1e-4, without a decimal point, as a string."""


_YamlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)
# What PyYAML raises, without a line, for values such as `!!bool maybe`, `!!int ""`, 2026-13-01 and `!!timestamp x`.
_YAML_FAULTS = (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError)


def _yaml_fault(path: str | Path, error: BaseException, line: int | None = None) -> InputError:
    mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
    line = mark.line + 1 if mark else line
    where = f"{path}" if line is None else f"{path}:{line}"
    if isinstance(error, RecursionError):
        reason = "nested too deeply"
    elif isinstance(error, yaml.YAMLError):
        reason = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    else:
        reason = f"not a valid value ({type(error).__name__}: {error})"
    return InputError(f"{where}: not YAML: {reason}")


def _compose(loader: _YamlLoader, text: str) -> yaml.Node | None:
    """Parse one document.

    Raises:
        YAMLError, or another of _YAML_FAULTS: if it is not YAML, or larger than MAX_YAML or MAX_NODES.
    """
    if len(text) > MAX_YAML:
        raise yaml.YAMLError(f"{len(text)} characters; at most {MAX_YAML} are accepted")
    root = loader.get_single_node()
    waiting, count = [root] if root else [], 0
    while waiting:
        node = waiting.pop()
        count += 1
        if count > MAX_NODES:
            raise yaml.YAMLError(f"more than {MAX_NODES} values")
        if isinstance(node, yaml.MappingNode):
            waiting += [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value
    return root


def parse_yaml(text: str, where: str) -> Any:
    """Convert YAML text to plain types.

    Raises:
        InputError: starting with `where`, if `text` is not YAML.
    """
    try:
        loader = _YamlLoader(text)
        node = _compose(loader, text)
        return None if node is None else loader.construct_document(node)
    except _YAML_FAULTS as error:
        raise _yaml_fault(where, error) from None


@dataclass(frozen=True)
class ScannedTable(Generic[V]):
    """A table with its faults, so that the caller can report them together with others.

    Attributes:
        path: the file.
        values: key -> converted value of all valid lines, in file order.
        lines: key -> line number, from 1; includes keys with a bad value.
        faults: one line of text for each bad line.
    """

    path: Path
    values: dict[str, V]
    lines: dict[str, int]
    faults: list[str]

    def where(self, key: str) -> str:
        """Return `file:line: key`, the start of a fault's line."""
        return f"{self.path}:{self.lines[key]}: {key}"

    def checked(self) -> dict[str, V]:
        """Return the values.

        Raises:
            InputError: naming all faults.
        """
        raise_faults(self.faults, str(self.path))
        return self.values


def split_key(line: str) -> tuple[str, str]:
    """Return the key at the start of a line, and the text after it; empty if there is none."""
    key, text = [*SEPARATOR.split(line.strip(BLANKS), maxsplit=1), ""][:2]
    return key, text


def scan_table(path: str | Path, convert: Callable[[str], V]) -> ScannedTable[V]:
    """Read a table with one line for each key.

    Args:
        path: the file.
        convert: converts the text after a key; raises InputError for a bad value.

    Raises:
        InputError: if the file is missing or is not UTF-8. Other faults are in the result.
    """
    table: ScannedTable[V] = ScannedTable(Path(path), {}, {}, [])
    for number, line in enumerate(read_lines(path), start=1):
        key, value = split_key(line)
        if not value:
            table.faults.append(f"{path}:{number}: expected 'key value', found {line!r}")
            continue
        if key in table.lines:
            table.faults.append(f"{path}:{number}: {key} is already in line {table.lines[key]}")
            continue
        if len(key.split()) != 1:  # such as U+3000, which other tools take as white space
            table.faults.append(f"{path}:{number}: {key!r} holds white space")
            continue
        table.lines[key] = number
        try:
            table.values[key] = convert(value)
        except InputError as error:
            table.faults.append(f"{table.where(key)}: {error}")
    return table


def scan_yaml(path: str | Path) -> ScannedTable[Any]:
    """Read a YAML file of `key: value` lines.

    Raises:
        InputError: if the file is missing or is not UTF-8. Other faults are in the result.
    """
    text = "\n".join(read_lines(path))
    table: ScannedTable[Any] = ScannedTable(Path(path), {}, {}, [])
    try:
        loader = _YamlLoader(text)
        root = _compose(loader, text)
    except _YAML_FAULTS as error:
        table.faults.append(str(_yaml_fault(path, error)))
        return table
    if root is not None and not isinstance(root, yaml.MappingNode):
        table.faults.append(f"{path}:{root.start_mark.line + 1}: expected lines of 'key: value'")
    for key_node, value_node in root.value if isinstance(root, yaml.MappingNode) else ():
        key, line = key_node.value, key_node.start_mark.line + 1
        if not isinstance(key, str):
            table.faults.append(f"{path}:{line}: expected 'key: value'")
        elif key in table.lines:
            table.faults.append(f"{path}:{line}: {key} is already set in {path}:{table.lines[key]}")
        else:
            table.lines[key] = line
            try:
                table.values[key] = loader.construct_object(value_node, deep=True)
            except _YAML_FAULTS as error:
                table.faults.append(str(_yaml_fault(path, error, line)))
    return table


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML file of `key: value` lines; empty for an empty file.

    Raises:
        InputError: if the file is missing or is not UTF-8, or naming each line that is not valid.
    """
    return scan_yaml(path).checked()


def read_table(path: str | Path) -> dict[str, str]:
    """Read a table with one line for each key, in file order.

    Raises:
        InputError: naming each line without a value and each repeated key.
    """
    return scan_table(path, str).checked()


def finite_number(text: str) -> float:
    """Convert a number.

    Raises:
        InputError: if it is not a finite number.
    """
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"not a finite number: {text!r}")
    return number


def read_floats(path: str | Path) -> dict[str, float]:
    """Read a table of numbers, such as utt2mos or utt2dur.

    Raises:
        InputError: naming each line whose value is not a finite number.
    """
    return scan_table(path, finite_number).checked()


def write_table(path: str | Path, table: Mapping[str, str | float]) -> None:
    """Write a table sorted by key, atomically. Floats are written so that they read back exactly.

    Raises:
        InputError: if a key or value is not UTF-8 (see `is_utf8`).
    """
    lines = [f"{key} {table[key]}\n" for key in sorted(table, key=c_locale_key)]
    text = "".join(lines)
    if not is_utf8(text):
        raise InputError(f"{path}: cannot be written: a key or value is not UTF-8")
    write_text(path, text)
