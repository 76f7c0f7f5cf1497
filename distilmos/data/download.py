"""Download of corpora and checkpoints: resumed, verified, and unpacked whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import http.client
import lzma
import os
import re
import shutil
import stat
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from distilmos.errors import FailedError, InputError
from distilmos.files import exclusive, followed, temporary_name

CHUNK = 1 << 20
TIMEOUT = 60.0  # seconds without a byte
ATTEMPTS = 5  # in a row without a new byte
PAUSE = 2.0  # seconds before the second attempt, doubled before each further one
# 4xx statuses of an overloaded or restarting server; the other 4xx statuses are final.
TEMPORARY = {408, 425, 429}
# What tarfile and zipfile raise for a damaged archive, besides OSError; zipfile has no type of its own for encrypted
# members and unknown compression.
DAMAGED = (
    *(tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError),
    *(ValueError, IndexError, OverflowError, RuntimeError, MemoryError),
)


class _RefusedError(Exception):
    """The server refuses the request; another attempt would not help."""


class _LinkError(Exception):
    """A member of an archive, which the message names, is a link."""


def download(url: str, path: str | Path, *, size: int | None = None, md5: str | None = None) -> bool:
    """Download a file unless it exists.

    An incomplete download stays in `path.part`, and the next call continues it. The usual environment variables
    (`https_proxy`, `no_proxy`) set proxies.

    Args:
        url: address with http, https or file.
        path: the file to write.
        size: expected number of bytes, if known.
        md5: expected hexadecimal checksum, if known.

    Returns:
        whether the file was downloaded.

    Raises:
        InputError: if `path` exists but does not match `size` and `md5`.
        FailedError: if the download fails, or its result does not match `size` and `md5`; the result is then removed.
    """
    path = followed(path)
    with exclusive(path):  # recipes that start together share checkpoints
        return _download(url, path, size, md5)


def _download(url: str, path: Path, size: int | None, md5: str | None) -> bool:
    if path.exists():
        if fault := _fault(path, size, md5):
            raise InputError(f"{path}: {fault}; remove the file to download it again")
        return False
    part = path.with_name(path.name + ".part")
    _fetch(url, part, size)
    if fault := _fault(part, size, md5):
        part.unlink()
        raise FailedError(f"{url}: {fault}; the download is removed; try again or use another mirror")
    with part.open("rb") as stream:
        os.fsync(stream.fileno())
    part.replace(path)
    return True


def _fault(path: Path, size: int | None, md5: str | None) -> str:
    """Return how a complete file differs from `size` and `md5`; empty if it matches."""
    found = path.stat().st_size
    if size is not None and found != size:
        return f"{found:,} bytes instead of {size:,}"
    if md5 is not None:
        with path.open("rb") as stream:
            # Not for security: md5 is the checksum that archives publish.
            digest = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if digest != md5.lower():
            return f"md5 {digest} instead of {md5.lower()}"
    return ""


def _fetch(url: str, part: Path, size: int | None) -> None:
    """Download the rest of `part`, over several connections if necessary."""
    failures = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        if size is not None and before == size:
            return
        try:
            _receive(url, part, before)
            return
        except _RefusedError as refusal:
            raise FailedError(f"{url}: {refusal}") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            grown = part.exists() and part.stat().st_size > before
            failures = 1 if grown else failures + 1
            if failures >= ATTEMPTS:
                hint = f"{part} is kept; the next call continues it" if part.exists() else "no data received"
                raise FailedError(f"{url}: {reason} ({ATTEMPTS} attempts; {hint})") from None
            print(f"{url}: {reason}; trying again", flush=True)
            time.sleep(PAUSE * 2 ** (failures - 1))


def _receive(url: str, part: Path, start: int) -> None:
    """Append the data of one connection to `part`, which has `start` bytes.

    Raises:
        _RefusedError: if another attempt would not help.
        OSError: if the connection breaks.
    """
    request = urllib.request.Request(url, headers={"User-Agent": "distilmos"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:  # `part` is complete, or the file has changed
            size = re.fullmatch(r"bytes \*/([0-9]+)", error.headers.get("Content-Range", ""))
            if size and int(size[1]) == start:
                return
            part.unlink()
            raise OSError("the size of the file on the server has changed") from None
        if 400 <= error.code < 500 and error.code not in TEMPORARY:
            raise _RefusedError(f"HTTP status {error.code} {error.reason}") from None
        raise
    except urllib.error.URLError as error:
        if isinstance(error.reason, FileNotFoundError):  # a file: URL
            raise _RefusedError(error.reason) from None
        raise
    with response:
        resumed = response.status == 206
        if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            raise OSError("the server sent a different range from the requested one")
        kept = start if resumed else 0
        announced = response.headers.get("Content-Length")
        total = None if announced is None else kept + int(announced)
        with part.open("ab" if resumed else "wb") as stream:
            done = kept
            for chunk in iter(lambda: response.read(CHUNK), b""):
                stream.write(chunk)
                _report(part, done, done + len(chunk), total)
                done += len(chunk)
        # http.client does not report a connection that ends early.
        if total is not None and done < total:
            raise OSError(f"the connection broke after {done:,} of {total:,} bytes")
        if total is not None and done > total:
            raise _RefusedError(f"received {done:,} bytes, but the server announced {total:,}")


def _report(part: Path, before: int, now: int, total: int | None) -> None:
    """Print a line after each tenth of the file."""
    if total is not None and 10 * before // total < 10 * now // total:
        print(f"{part.name.removesuffix('.part')}: {now / 1e6:,.1f} of {total / 1e6:,.1f} MB", flush=True)


def unpack(archive: str | Path, directory: str | Path, members: tuple[str, ...] = ()) -> None:
    """Unpack a tar or zip archive to `directory`, which appears only when it is complete.

    Args:
        archive: path of the archive.
        directory: where to unpack; must not exist.
        members: paths of archives inside the archive; each is unpacked in its own directory and removed.

    Raises:
        InputError: if the archive is damaged, lacks one of `members`, or holds a link or a path that leads out of
            `directory`; or if `directory` exists.
    """
    archive, directory = Path(archive), Path(directory)
    if directory.exists():
        raise InputError(f"{directory}: already exists")
    temporary = temporary_name(directory)
    try:
        temporary.mkdir(parents=True)
        _extract(archive, temporary)
        for member in members:
            inner = temporary / member
            if not inner.is_file():
                raise InputError(f"{archive}: holds no file {member}")
            _extract(inner, inner.parent)
            inner.unlink()
        temporary.replace(directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _extract(archive: Path, directory: Path) -> None:
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as packed:
                # zipfile would silently move a path that leads out of the directory to somewhere inside.
                if names := [name for name in packed.namelist() if _leads_out(name)]:
                    raise InputError(f"{archive}: {names[0]!r} leads out of the directory")
                if links := [member for member in packed.infolist() if stat.S_ISLNK(member.external_attr >> 16)]:
                    raise _LinkError(links[0].filename)
                packed.extractall(directory)
        else:
            with tarfile.open(archive) as packed:
                packed.extractall(directory, filter=_plain)
                # The checksum of the compressed data follows the part that tarfile reads.
                while packed.fileobj is not None and packed.fileobj.read(CHUNK):
                    pass
    except FileNotFoundError:
        raise InputError(f"{archive}: no such file") from None
    except _LinkError as error:
        raise InputError(f"{archive}: {str(error)!r} is a link; archives must not hold links") from None
    except tarfile.FilterError as error:
        raise InputError(f"{archive}: {error}") from None
    except (IsADirectoryError, NotADirectoryError, FileExistsError) as error:
        raise InputError(f"{archive}: a member is both a file and a directory: {error.filename}") from None
    except (*DAMAGED, OSError) as error:
        # gzip's error has no number; a damaged offset or a refused name has one of these. Other errors, such as a full
        # disk, are not the archive's fault.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL, errno.EILSEQ, errno.ENAMETOOLONG):
            raise
        raise InputError(f"{archive}: not a complete tar or zip archive: {error}") from None


def _plain(member: tarfile.TarInfo, directory: str) -> tarfile.TarInfo | None:
    """Apply tarfile's "data" filter; refuse links, because chains of links can lead outside (CVE-2025-4517)."""
    if member.issym() or member.islnk():
        raise _LinkError(member.name)
    return tarfile.data_filter(member, directory)


def _leads_out(name: str) -> bool:
    path = PurePosixPath(name.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts
