"""Downloads from a real server on loopback: resumed, verified, unpacked."""

from __future__ import annotations

import hashlib
import io
import random
import stat
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.fileserver import FileServer, serve

from distilmos.cli import main
from distilmos.data import download as module
from distilmos.data.download import download, unpack
from distilmos.errors import FailedError, InputError

CONTENT = bytes(range(256)) * 20000  # five chunks
MD5 = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE", 0.01)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FileServer]:
    root = tmp_path / "served"
    root.mkdir()
    (root / "file").write_bytes(CONTENT)
    with serve(root) as running:
        yield running


def test_fetches_once(server: FileServer, tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    assert download(f"{server.url}/file", path, size=len(CONTENT), md5=MD5.upper())
    assert path.read_bytes() == CONTENT
    assert not download(f"{server.url}/file", path, size=len(CONTENT), md5=MD5)
    assert len(server.requests) == 1
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def test_a_broken_transfer_continues_where_it_stopped(server: FileServer, tmp_path: Path) -> None:
    server.break_after = [1_000_000, 2_000_000]
    server.statuses = [503]
    assert download(f"{server.url}/file", tmp_path / "file", md5=MD5)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert [wanted for _, wanted in server.requests] == [None, None, "bytes=1000000-", "bytes=3000000-"]


def test_a_later_call_continues_too(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT[:4321])
    assert download(f"{server.url}/file", tmp_path / "file", md5=MD5)
    assert server.requests == [("/file", "bytes=4321-")]
    # All had arrived, and the process was killed before it was renamed.
    (tmp_path / "file").rename(tmp_path / "file.part")
    assert download(f"{server.url}/file", tmp_path / "file", md5=MD5)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_server_that_cannot_send_parts(server: FileServer, tmp_path: Path) -> None:
    server.ranges = False
    (tmp_path / "file.part").write_bytes(b"x" * 4321)
    assert download(f"{server.url}/file", tmp_path / "file", md5=MD5)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_part_longer_than_the_file_is_fetched_again(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT + b"x")
    assert download(f"{server.url}/file", tmp_path / "file", md5=MD5)
    assert (tmp_path / "file").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("wrong", "values"), [({"md5": "0" * 32}, f"{MD5} .*{'0' * 32}"), ({"size": 7}, r"5,120,000 .*\b7\b")]
)
def test_another_file_is_refused(server: FileServer, tmp_path: Path, wrong: dict, values: str) -> None:
    with pytest.raises(FailedError, match=f"{server.url}/file: .*{values}"):
        download(f"{server.url}/file", tmp_path / "file", **wrong)
    assert [p.name for p in tmp_path.iterdir()] == ["served"]
    (tmp_path / "file").write_bytes(CONTENT)
    with pytest.raises(InputError, match=f"{tmp_path}/file: .*{values}"):
        download(f"{server.url}/file", tmp_path / "file", **wrong)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_missing_file_is_asked_for_once(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(FailedError, match=rf"{server.url}/no: .*\b404\b"):
        download(f"{server.url}/no", tmp_path / "no")
    assert len(server.requests) == 1


def test_gives_up_and_keeps_what_came(server: FileServer, tmp_path: Path) -> None:
    server.break_after = [100] + [0] * 9
    with pytest.raises(FailedError, match=rf"{server.url}/file: .*\b100\b .*\b5,120,000\b.*/file\.part\b"):
        download(f"{server.url}/file", tmp_path / "file")
    assert (tmp_path / "file.part").read_bytes() == CONTENT[:100]
    assert not (tmp_path / "file").exists()


def tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as packed:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            packed.addfile(info, io.BytesIO(content))
    return path


def zipped(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    return stream.getvalue()


def test_command_fetches_and_unpacks(server: FileServer, tmp_path: Path) -> None:
    outer = zipped({"audios.zip": zipped({"audios/a.wav": b"a"}), "readme.txt": b"r"})
    (server.root / "corpus.zip").write_bytes(outer)
    command = ["download", f"{server.url}/corpus.zip", str(tmp_path / "corpus.zip"), "--unpack", str(tmp_path / "out")]
    command += ["--nested", "audios.zip", "--md5", hashlib.md5(outer).hexdigest()]
    assert main(command) == 0
    found = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert found == {"audios/a.wav", "readme.txt"}
    (tmp_path / "corpus.zip").unlink()  # once unpacked it is not needed
    assert main(command) == 0
    assert len(server.requests) == 1


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_nothing_is_left_of_a_bad_archive(tmp_path: Path, kind: str) -> None:
    def pack(members: dict[str, bytes]) -> Path:
        path = tmp_path / "archive"
        if kind == "tar":
            return tar(path, members)
        path.write_bytes(zipped(members))
        return path

    with pytest.raises(InputError, match="evil"):
        unpack(pack({"good": b"g", "../evil": b"e"}), tmp_path / "out")
    with pytest.raises(InputError, match=r"archive: .*audios\.zip"):
        unpack(pack({"good": b"g"}), tmp_path / "out", ("audios.zip",))
    path = pack({"good": CONTENT})
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(InputError, match=rf"^{path}: "):
        unpack(path, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["archive"]


def test_damaged_offsets_and_names_that_no_file_can_have(tmp_path: Path) -> None:
    path = tmp_path / "archive"
    damaged = bytearray(zipped({"good": b"g"}))
    damaged[-5] = 0xFF  # of the offset of the list of members
    for content in (bytes(damaged), zipped({"n" * 300: b"g"}), tar(path, {"n" * 300: b"g"}).read_bytes()):
        path.write_bytes(content)
        with pytest.raises(InputError, match=rf"^{path}: "):
            unpack(path, tmp_path / "out")
        assert [p.name for p in tmp_path.iterdir()] == ["archive"]


@pytest.mark.parametrize("kind", ["tar symbolic", "tar hard", "zip symbolic"])
def test_links_are_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "archive"
    if kind.startswith("tar"):
        with tarfile.open(path, "w") as packed:
            packed.addfile(tarfile.TarInfo("good"), io.BytesIO())
            info = tarfile.TarInfo("sub/link")
            info.type, info.linkname = (tarfile.SYMTYPE if "symbolic" in kind else tarfile.LNKTYPE), "good"
            packed.addfile(info)
    else:
        with zipfile.ZipFile(path, "w") as zip_file:
            entry = zipfile.ZipInfo("sub/link")
            entry.create_system, entry.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
            zip_file.writestr(entry, "good")
    with pytest.raises(InputError, match=r"archive: 'sub/link' "):
        unpack(path, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["archive"]


def test_two_at_once_fetch_one_file(server: FileServer, tmp_path: Path) -> None:
    """Recipes that start together download the same encoder to the same path."""
    content = bytes(range(256)) * 20000
    (server.root / "big").write_bytes(content)
    server.break_after = [1000, 2000, 3000]
    command = [sys.executable, "-m", "distilmos.cli", "download", f"{server.url}/big", str(tmp_path / "to" / "big")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(3)]
    said = [process.communicate(timeout=120)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], said
    assert (tmp_path / "to" / "big").read_bytes() == content
    assert [path.name for path in (tmp_path / "to").iterdir()] == ["big"]


@pytest.mark.parametrize("kind", ["gz", "xz", "bz2"])
def test_damage_in_compressed_data_is_noticed(tmp_path: Path, kind: str) -> None:
    """The tarfile module stops before the checksum."""
    source = tmp_path / "x.bin"
    source.write_bytes(random.Random(0).randbytes(200000))
    archive = tmp_path / f"a.tar.{kind}"
    with tarfile.open(archive, f"w:{kind}") as packed:  # type: ignore[call-overload]
        packed.add(source, "x.bin")
    unpack(archive, tmp_path / "good")
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 0x55
    archive.write_bytes(data)
    with pytest.raises(InputError, match=rf"^{archive}: "):
        unpack(archive, tmp_path / "bad")
    assert not (tmp_path / "bad").exists()


@pytest.mark.parametrize("fault", ["name", "offset"])
def test_names_and_offsets_that_the_system_refuses_are_faults_of_the_archive(tmp_path: Path, fault: str) -> None:
    content = zipped({"x" * 300: b"a"}) if fault == "name" else zipped({"a": b"a"})[10:]
    (tmp_path / "archive").write_bytes(content)
    with pytest.raises(InputError, match=rf"^{tmp_path}/archive: "):
        unpack(tmp_path / "archive", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]
