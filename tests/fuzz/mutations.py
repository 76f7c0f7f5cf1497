"""Mutations of valid files that know their format: text, JSON, YAML, PyTorch, safetensors, zip, tar and plain bytes.

All draw from a seeded `random.Random`, so that an input can be made again.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import os
import re
import struct
import tarfile
import zipfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import PurePosixPath
from random import Random
from typing import Any

import torch
import yaml
from safetensors.torch import load, save

Files = dict[str, bytes]  # path below the directory of the input -> content
Mutator = Callable[[bytes, Random], bytes]

CANARY = "canary"  # a file of this name appears if a reader executes what a file holds
ESCAPED = "/tmp/distilmos-fuzz-escaped"  # no reader may open this
LARGE = 1 << 20  # values: a mutation copies no tensor that has more, such as an expanded one
INTEGERS = (0, 1, 2, 3, 127, 128, 255, 32767, 32768, 65535, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
BOMB = "[&a [x,x,x,x,x,x,x,x], " + ", ".join(f"&{b} [{','.join(['*' + a] * 8)}]" for a, b in pairwise("abcdefghij"))
# Replaced in JSON and YAML after serialising, because no Python value gives these texts.
RAW_JSON = {
    "@deep@": "[" * 100_000 + "]" * 100_000,
    "@digits@": "9" * 5000,
    "@surrogate@": '"\\ud800"',
    "@nan@": "NaN",
    "@huge@": "1e999",
    "@twice@": '{"a": 1, "a": 2}',
}
RAW_YAML = {
    "@deep@": "[" * 3000 + "]" * 3000,
    "@digits@": "9" * 5000,
    "@bomb@": BOMB + "]",
    "@self@": "&s [*s]",
    "@mapself@": "&m {a: *m}",
    "@bool@": "!!bool maybe",
    "@int@": '!!int ""',
    "@float@": "!!float x",
    "@date@": "2001-01-01",
    "@baddate@": "2001-99-99",
    "@stamp@": "!!timestamp x",
    "@binary@": "!!binary é",
    "@set@": "!!set {a}",
    "@omap@": "!!omap [1]",
    "@pairs@": "!!pairs [1]",
    "@keys@": "{[1]: 2, ? {a: 1} : 3}",
    "@merge@": "{<<: [1]}",
    "@value@": "=",
    "@base60@": "1:30:59",
    "@hex@": "0x_",
    "@octal@": "0_9",
    "@nan@": ".nan",
    "@python@": f"!!python/object/apply:os.system ['touch {CANARY}']",
    "@alias@": "*nothing",
    "@quoted@": '"\\ud800\\0"',
}
WORDS = (
    *("", "nan", "inf", "-inf", "-1", "0", "1e999", "1e-999", "0x10", "1_0", "\u0661", "5.000001", "9" * 400),
    *("\u00e9", "\u2028", "\x85", "\x0b", "\0", "\ufeff", "\U0001f600", '"', "'", ",", "|", "\\", "\t", "#", "=", ":"),
    *(f"touch {CANARY} |", f"|touch {CANARY}", f"$(touch {CANARY})", f"`touch {CANARY}`", f"=cmd|'touch {CANARY}'!A1"),
    *(
        "/dev/zero",
        "/dev/full",
        "/dev/stdin",
        ".",
        "..",
        "../outside/decoy.wav",
        ESCAPED,
        "~",
        "~nobody/x",
        "-",
        "--help",
    ),
    *("a.wav:99999999999999999999", "a.wav:-1", "a.wav:7", "a.ark", "a:b:c", "%s", "{}", "{0.__class__}"),
    *("x" * 300, "/".join(["x" * 200] * 30), "x" * 100_000),
)


def mutate(files: Files, rng: Random, fixed: Callable[[str], bool]) -> Files:
    """Return the files of an input with one to four changes; files for which `fixed` is true stay unchanged."""
    result = dict(files)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        names = [name for name in result if not fixed(name)]
        if not names:
            break
        name = rng.choice(names)
        if rng.randrange(40) == 0:
            del result[name]
        elif rng.randrange(40) == 0:
            result[name] = result[rng.choice(names)]
        else:
            result[name] = rng.choice(mutators(name, result[name]))(result[name], rng)
    return result


def mutators(name: str, data: bytes) -> list[Mutator]:
    """Return the mutations that fit a file; those that keep its format come several times, so they are chosen more."""
    suffix = PurePosixPath(name).suffix
    if suffix == ".tgz":
        return [tar_members, tar_members, *BYTES]
    if data.startswith(b"PK") and suffix == ".zip":
        return [zip_members, zip_members, zip_fields, *BYTES]
    if data.startswith((b"PK", b"\x80")):
        return [torch_tree] * 16 + [zip_entry, zip_entry, *BYTES]
    if suffix == ".safetensors":
        return [safetensors_tree] * 10 + [safetensors_header] * 4 + [*BYTES]
    if suffix in (".json", ".index"):
        return [json_tree] * 16 + [*TEXT, *BYTES]
    if suffix in (".jsonl", ".partial"):
        return [json_line] * 16 + [*TEXT, *TEXT, *BYTES]
    if suffix == ".yaml":
        return [yaml_tree] * 16 + [yaml_line] * 6 + [*TEXT, *BYTES]
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return [*BYTES]
    return [*TEXT, *TEXT, *BYTES]


# Bytes


def _place(data: bytes, rng: Random) -> int:
    """Return a position, more often in the header than in the rest."""
    return rng.randrange(min(len(data), rng.choice((16, 64, 256, 2048, 1 << 40))) or 1)


def flip(data: bytes, rng: Random) -> bytes:
    """Change single bits."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8)) if data else 0):
        changed[_place(data, rng)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def integer(data: bytes, rng: Random) -> bytes:
    """Write an extreme integer of 1 to 8 bytes over others, as in a field of lengths."""
    width = rng.choice((1, 2, 4, 4, 8))
    value = rng.choice(INTEGERS) % (1 << 8 * width)
    start = _place(data, rng)
    if rng.randrange(2):
        start -= start % width
    return data[:start] + value.to_bytes(width, rng.choice(("little", "big"))) + data[start + width :]


def nudge(data: bytes, rng: Random) -> bytes:
    """Add a small number to a field of four bytes."""
    start = _place(data, rng) & ~1
    order = rng.choice("<>")
    if len(data) < start + 4:
        return data
    value = struct.unpack_from(f"{order}I", data, start)[0] + rng.choice((-256, -8, -2, -1, 1, 2, 8, 256))
    return data[:start] + struct.pack(f"{order}I", value % (1 << 32)) + data[start + 4 :]


def truncate(data: bytes, rng: Random) -> bytes:
    """Cut the file off."""
    return data[: rng.choice((0, 1, _place(data, rng), _place(data, rng), max(0, len(data) - 1), len(data) // 2))]


def insert(data: bytes, rng: Random) -> bytes:
    """Insert or append bytes that mean something in some format."""
    extra = rng.choice(
        (b"\0", b"\xff", b"\n", b"\0" * 64, b"\xff" * 64, b"\xc3\x28", b"PK\3\4", b"RIFF", b"OggS", b"{")
    )
    start = rng.choice((0, _place(data, rng), len(data)))
    return data[:start] + extra * rng.choice((1, 1, 1, 1000)) + data[start:]


def remove(data: bytes, rng: Random) -> bytes:
    """Remove a part."""
    start = _place(data, rng)
    return data[:start] + data[start + rng.choice((1, 2, 4, 16, 256)) :]


def splice(data: bytes, rng: Random) -> bytes:
    """Copy a part of the file to another place of it."""
    start, size, target = _place(data, rng), rng.choice((1, 4, 32, 1024)), _place(data, rng)
    return data[:target] + data[start : start + size] + data[target + rng.choice((0, size)) :]


def double(data: bytes, rng: Random) -> bytes:
    """Join the file, or a part of it, to itself."""
    return data + data[_place(data, rng) if rng.randrange(2) else 0 :]


BYTES: tuple[Mutator, ...] = (flip, integer, integer, nudge, truncate, insert, remove, splice, double)

# Text


def _lines(data: bytes) -> list[str]:
    return data.decode("utf-8", "surrogateescape").split("\n")


def _joined(lines: list[str]) -> bytes:
    return "\n".join(lines).encode("utf-8", "surrogateescape")


def word(data: bytes, rng: Random) -> bytes:
    """Replace a word, or a value between delimiters, by an awkward one, or add it."""
    lines = _lines(data)
    line = rng.randrange(len(lines))
    parts = re.split(r"([ \t,;=:]+)", lines[line])
    place = rng.randrange(len(parts))
    parts[place] = rng.choice((rng.choice(WORDS), rng.choice(WORDS), parts[place] + rng.choice(WORDS)))
    lines[line] = "".join(parts)
    return _joined(lines)


def line(data: bytes, rng: Random) -> bytes:
    """Remove, repeat, move, join or empty a line."""
    lines = _lines(data)
    a, b = rng.randrange(len(lines)), rng.randrange(len(lines))
    change = rng.randrange(6)
    if change == 0:
        del lines[a]
    elif change == 1:
        lines.insert(b, lines[a])
    elif change == 2:
        lines[a], lines[b] = lines[b], lines[a]
    elif change == 3:
        lines[a] = lines[a] + rng.choice(("", " ", "\t", ",")) + lines[b]
    elif change == 4:
        lines[a] = rng.choice(("", " ", "\t \t", "#"))
    else:
        lines[a] = rng.choice((lines[a].upper(), lines[a] * 1000, lines[a][: len(lines[a]) // 2], lines[a] + "\r"))
    return _joined(lines)


def encoding(data: bytes, rng: Random) -> bytes:
    """Change the encoding or the line ends."""
    text = data.decode("utf-8", "replace")
    change = rng.randrange(5)
    if change == 0:
        return text.encode(rng.choice(("utf-16", "utf-8-sig", "utf-32-be")))
    if change == 1:
        return text.replace("\n", rng.choice(("\r\n", "\r", "\u2028", "\n\n", "\0"))).encode()
    start = _place(data, rng)
    return data[:start] + rng.choice((b"\xff", b"\xe9", b"\xed\xa0\x80", b"\0", b"\xf4\x90\x80\x80")) + data[start:]


TEXT: tuple[Mutator, ...] = (word, word, word, line, line, encoding)

# Trees: JSON, YAML and what torch.save stores


def _nodes(tree: Any) -> list[tuple[Any, Any]]:
    """Return (container, key) of all values in dictionaries and lists."""
    found: list[tuple[Any, Any]] = []
    pending = [tree]
    while pending and len(found) < 2000:
        node = pending.pop()
        if isinstance(node, argparse.Namespace):
            node = vars(node)
        if isinstance(node, dict):
            pairs = list(node.items())
        elif isinstance(node, list):
            pairs = list(enumerate(node))
        else:
            continue
        found += [(node, key) for key, _ in pairs]
        pending += [value for _, value in pairs]
    return found


def _upper_first(nodes: list[tuple[Any, Any]], rng: Random) -> tuple[Any, Any]:
    """Choose a node; those near the root, which come first, more often."""
    return nodes[rng.randrange(rng.choice((len(nodes), min(len(nodes), 12))))]


def change_tree(tree: Any, rng: Random, values: Callable[[Random], Any]) -> Any:
    """Change one node of a tree in place, or all of it; return it.

    Args:
        tree: dictionaries, lists and other values.
        rng: source of the choices.
        values: draws a value that does not belong there.
    """
    nodes = _nodes(tree)
    if not nodes or rng.randrange(30) == 0:
        return values(rng)
    container, key = _upper_first(nodes, rng)
    change = rng.randrange(8)
    if change == 0:
        del container[key]
    elif change == 1 and isinstance(container, dict):
        container[rng.choice((f"{key}x", "", "x", 1, *container))] = container.pop(key)
    elif change == 2:
        other, its = _upper_first(nodes, rng)
        container[key] = copy.deepcopy(other[its]) if its in other or isinstance(other, list) else None
    elif change in (3, 4):
        container[key] = _resembling(container[key], rng)
    else:
        container[key] = values(rng)
    return tree


def _resembling(value: Any, rng: Random) -> Any:
    """Return a value that looks like `value`."""
    if isinstance(value, bool):
        return rng.choice((not value, int(value), str(value)))
    if isinstance(value, int | float):
        return rng.choice(
            (-value, value + 1, value - 1, value * 2, value * 1000, value / 3, float(value), str(value), [value])
        )
    if isinstance(value, str):
        return rng.choice(
            (value[:-1], value + "x", value * 3, value.upper(), [value], {value: value}, rng.choice(WORDS))
        )
    if isinstance(value, list | tuple):
        return rng.choice(
            (value[:-1], [*value, *value], value[::-1], [], [value], dict(enumerate(value)), tuple(value))
        )
    if isinstance(value, dict):
        return rng.choice(({}, list(value.items()), list(value), list(value.values()), {**value, "x": 1}))
    return [value]


def plain_value(rng: Random) -> Any:
    """Return a value of JSON's types that does not belong where it comes."""
    return rng.choice(
        (
            *(None, True, False, 0, -1, 1, 7, 65536, 10**6, 2**31, 2**63, 10**30, 0.5, -0.0, 1e-320, 1e308, 1e30),
            *(
                "",
                "x",
                "0",
                "1e3",
                "a\0b",
                "\u00e9",
                "a b",
                "\n",
                "../outside/decoy.wav",
                ESCAPED,
                "x" * 300,
                "x" * 10_000,
            ),
            *([], {}, [[]], [None], [0], [1, "x"], [{}], {"": None}, {"x": {}}, [[[]]], list(range(5000))),
        )
    )


def _raw(text: str, raws: dict[str, str]) -> str:
    for token, replacement in raws.items():
        for quoted in (f'"{token}"', f"'{token}'", token):
            text = text.replace(quoted, replacement)
    return text


def _plain_or_raw(raws: dict[str, str]) -> Callable[[Random], Any]:
    return lambda rng: rng.choice((*raws, *[None] * len(raws))) or plain_value(rng)


def json_tree(data: bytes, rng: Random) -> bytes:
    """Change values of a JSON file."""
    try:
        tree = json.loads(data)
        changed = change_tree(tree, rng, _plain_or_raw(RAW_JSON))
        return _raw(json.dumps(changed, ensure_ascii=False), RAW_JSON).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError, TypeError, OverflowError):
        return word(data, rng)


def json_line(data: bytes, rng: Random) -> bytes:
    """Change values of one line of a file of JSON lines."""
    lines = data.split(b"\n")
    place = rng.randrange(len(lines))
    lines[place] = json_tree(lines[place], rng).replace(b"\n", b" ")
    return b"\n".join(lines)


def yaml_tree(data: bytes, rng: Random) -> bytes:
    """Change values of a YAML file."""
    try:
        tree = yaml.safe_load(data)
        changed = change_tree(tree, rng, _plain_or_raw(RAW_YAML))
        text = yaml.safe_dump(changed, sort_keys=False, allow_unicode=True, default_flow_style=rng.choice((None, True)))
        return _raw(text, RAW_YAML).encode("utf-8", "surrogatepass")
    except Exception:  # earlier changes may have left anything
        return word(data, rng)


def yaml_line(data: bytes, rng: Random) -> bytes:
    """Add YAML that is not a plain line of 'key: value'."""
    lines = _lines(data)
    extra = rng.choice(list(RAW_YAML.values()))
    added = (
        extra,
        f"x: {extra}",
        f"{extra}: x",
        f"? {extra}\n: x",
        f"<<: {extra}",
        "---",
        "...",
        "%YAML 9.9",
        "- x",
        "\tx: 1",
    )
    lines.insert(rng.randrange(len(lines) + 1), rng.choice(added))
    return _joined(lines)


# PyTorch and safetensors


class Canary:
    """Writes CANARY into the working directory if a reader unpickles it."""

    def __reduce__(self) -> Any:
        """Return the command."""
        return os.system, (f"touch {CANARY}",)


class Evaluated:
    """Writes CANARY if a reader unpickles it; `eval` is on other lists than `os.system`."""

    def __reduce__(self) -> Any:
        """Return the expression."""
        return eval, (f"open('{CANARY}', 'w')",)


def _tensor(rng: Random) -> Any:
    """Return a tensor of an unusual kind, or another value that is not a weight."""
    base = torch.ones(4, 3)
    return rng.choice(
        (
            *(
                base,
                base[0],
                base[0, 0],
                base[:0],
                base.T,
                base.half(),
                base.double(),
                base.bool(),
                base.to(torch.int64),
            ),
            *(base * float("nan"), base.to(torch.complex64), base.bfloat16(), base.to_sparse(), base.to("meta")),
            *(torch.zeros(1).expand(200_000_000), torch.zeros(1).expand(30_000, 30_000), base.to(torch.float8_e4m3fn)),
            *(
                torch.quantize_per_tensor(base, 0.1, 0, torch.qint8),
                torch.nn.Parameter(base),
                torch.float16,
                base.size(),
            ),
            *(
                argparse.Namespace(),
                argparse.Namespace(model={}),
                Canary(),
                Evaluated(),
                b"x",
                {1, 2},
                (1, (2,)),
                1 + 2j,
            ),
        )
    )


def _is_small(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.numel() <= LARGE


def torch_tree(data: bytes, rng: Random) -> bytes:
    """Change what torch.save stored, and store it in its newer or its older format."""
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            tree = torch.load(io.BytesIO(data), weights_only=True)
        nodes = _nodes(tree)
        tensors = [(node, key) for node, key in nodes if _is_small(node[key])]
        if tensors and rng.randrange(3) == 0:
            node, key = rng.choice(tensors)
            tensor = node[key]
            node[key] = rng.choice(
                (
                    tensor.flatten(),
                    tensor[None],
                    tensor.t() if tensor.ndim < 3 else tensor[0],
                    tensor.double(),
                    tensor * 1e30,
                )
            )
        else:
            tree = change_tree(tree, rng, lambda r: _tensor(r) if r.randrange(2) else plain_value(r))
        stream = io.BytesIO()
        torch.save(tree, stream, _use_new_zipfile_serialization=rng.randrange(4) > 0)
        return stream.getvalue()
    except Exception:  # earlier changes may have left anything
        return flip(data, rng)


def _rezipped(data: bytes, change: Callable[[list[tuple[zipfile.ZipInfo, bytes]]], None]) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as packed:
        members = [(info, packed.read(info)) for info in packed.infolist()]
    change(members)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as packed:
        for info, content in members:
            packed.writestr(info, content)
    return stream.getvalue()


def zip_entry(data: bytes, rng: Random) -> bytes:
    """Change the bytes of one member of a zip file, with a right checksum."""

    def change(members: list[tuple[zipfile.ZipInfo, bytes]]) -> None:
        place = rng.randrange(min(len(members), rng.choice((1, len(members)))))
        info, content = members[place]
        members[place] = (info, rng.choice(BYTES)(content, rng))

    try:
        return _rezipped(data, change)
    except Exception:  # earlier changes may have left anything
        return flip(data, rng)


def safetensors_header(data: bytes, rng: Random) -> bytes:
    """Change the JSON header, also the JSON inside its metadata."""
    size = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + size]
    try:
        tree = json.loads(header)
        metadata = tree.get("__metadata__")
        if metadata and rng.randrange(4):
            key = rng.choice(list(metadata))
            metadata[key] = json_tree(metadata[key].encode(), rng).decode()
            header = json.dumps(tree).encode()
        else:
            header = json_tree(header, rng)
    except (ValueError, AttributeError, RecursionError, TypeError):
        header = word(header, rng)
    return len(header).to_bytes(8, "little") + header + data[8 + size :]


def safetensors_tree(data: bytes, rng: Random) -> bytes:
    """Change names, types and shapes of tensors, in a file that is otherwise right."""
    try:
        size = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + size]).get("__metadata__")
        tensors = load(data)
        if metadata and rng.randrange(2):
            key = rng.choice(list(metadata))
            metadata[key] = json_tree(metadata[key].encode(), rng).decode()
        else:
            tree = change_tree(tensors, rng, _tensor)
            tensors = {str(name): value.contiguous().clone() for name, value in tree.items() if _is_small(value)}
        return save(tensors, metadata)
    except Exception:  # earlier changes may have left anything
        return safetensors_header(data, rng)


# Archives

PATHS = (
    *("../escaped", "a/../../escaped", ESCAPED, "..", ".", "", "/", "a\\..\\..\\escaped", "C:\\escaped", "a/", "a//b"),
    *("x" * 300, "/".join(["x"] * 3000), "\u00e9", "\udce9", "a\nb", "inner.zip", "inner.zip/x", "list.csv/x", "a.wav"),
)


def zip_members(data: bytes, rng: Random) -> bytes:
    """Give a member of a zip file another name, type or compression."""

    def change(members: list[tuple[zipfile.ZipInfo, bytes]]) -> None:
        info, content = members[rng.randrange(len(members))]
        kind = rng.randrange(4)
        if kind == 0:
            info.external_attr = rng.choice((0o120777, 0o010644, 0o020644, 0o040755, 0o100000, 0xFFFF)) << 16
        elif kind == 1:
            info.compress_type = rng.choice(
                (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
            )
        else:
            new = copy.copy(info)
            new.filename = rng.choice(PATHS)
            members.append((new, rng.choice((content, b"", b"../escaped"))))

    try:
        return _rezipped(data, change)
    except Exception:  # earlier changes may have left anything
        return zip_fields(data, rng)


def zip_fields(data: bytes, rng: Random) -> bytes:
    """Write an extreme integer into a header of a zip file."""
    headers = [match.start() for match in re.finditer(rb"PK[\1-\x08]", data)]
    if not headers:
        return flip(data, rng)
    start = rng.choice(headers) + 4 + 2 * rng.randrange(22)
    width = rng.choice((2, 4))
    value = rng.choice((*INTEGERS, 8, 9, 12, 14, 99)) % (1 << 8 * width)
    return data[:start] + value.to_bytes(width, "little") + data[start + width :]


def tar_members(data: bytes, rng: Random) -> bytes:
    """Give a member of a tar file another name, type, size or time."""
    kinds = (
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.CHRTYPE,
        tarfile.FIFOTYPE,
        tarfile.DIRTYPE,
        tarfile.GNUTYPE_SPARSE,
    )
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as packed:
            members = [(info, packed.extractfile(info).read() if info.isfile() else b"") for info in packed]
        info, content = rng.choice(members)
        new = copy.copy(info)
        kind = rng.randrange(4)
        if kind == 0:
            new.type, new.linkname = rng.choice(kinds), rng.choice((*PATHS, "a.wav"))
        elif kind == 1:
            new.mode, new.mtime = rng.choice((0, 0o7777, 0o4755)), rng.choice((-1, 2**40, 1e30, 0))
        elif kind == 2:
            new.pax_headers = {rng.choice(("path", "size", "mtime", "linkpath")): rng.choice(("x", "-1", *PATHS))}
        if kind != 1:
            new.name = rng.choice((*PATHS, info.name))
        members.append((new, content))
        stream = io.BytesIO()
        form = rng.choice((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT))
        with tarfile.open(fileobj=stream, mode=rng.choice(("w:gz", "w", "w:xz", "w:bz2")), format=form) as packed:
            for each, text in members:
                packed.addfile(each, io.BytesIO(text) if each.isreg() else None)
        return stream.getvalue()
    except Exception:  # earlier changes may have left anything
        return rng.choice(BYTES)(data, rng)
