"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from distilmos.files import atomic_path, replace_directory, replaced_directory, temporary_name, write_text


def test_writers_of_one_path_do_not_share_a_temporary_file_though_their_process_ids_are_equal(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "info.json") as first:
        first.write_text("first")
        with atomic_path(tmp_path / "info.json") as second:
            assert second != first
            second.write_text("second")
        assert (tmp_path / "info.json").read_text() == "second"
    assert (tmp_path / "info.json").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["info.json"]


def test_a_failed_writer_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("old")
    with pytest.raises(ValueError, match="stop"), atomic_path(tmp_path / "t") as temporary:
        temporary.write_text("new")
        raise ValueError("stop")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_the_mode_is_that_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    with atomic_path(tmp_path / "atomic") as temporary:
        temporary.touch()
    assert stat.S_IMODE((tmp_path / "atomic").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


@pytest.mark.parametrize("links", [["a"], ["a", "b"]], ids=["link", "link to a link"])
def test_a_symbolic_link_stays_and_its_target_is_replaced(tmp_path: Path, links: list[str]) -> None:
    target = tmp_path / "elsewhere" / "t"
    for name, leads_to in zip(links, [*links[1:], "elsewhere/t"], strict=True):
        (tmp_path / name).symlink_to(leads_to)
    for text in ("new", "newer"):  # the target does not exist at first
        write_text(tmp_path / "a", text)
        assert target.read_text() == text
    assert all((tmp_path / name).is_symlink() for name in links)
    assert sorted(path.name for path in tmp_path.rglob("*")) == sorted([*links, "elsewhere", "t"])


def test_a_link_to_a_directory_stays_and_the_directory_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "disk" / "d").mkdir(parents=True)
    (tmp_path / "link").symlink_to("disk/d")
    with replaced_directory(tmp_path / "link") as new:
        (new / "one").touch()
    assert [path.name for path in (tmp_path / "disk" / "d").iterdir()] == ["one"]
    new = temporary_name(tmp_path / "link")
    new.mkdir()
    (new / "two").touch()
    replace_directory(new, tmp_path / "link")
    assert [path.name for path in (tmp_path / "disk" / "d").iterdir()] == ["two"]
    assert (tmp_path / "link").is_symlink()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["d", "disk", "link", "two"]


def test_a_pipe_is_written_into(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    received = []
    reader = threading.Thread(target=lambda: received.append((tmp_path / "pipe").read_text()), daemon=True)
    reader.start()
    write_text(tmp_path / "link", "text")
    reader.join(10)
    assert received == ["text"]
    assert (tmp_path / "pipe").is_fifo() and (tmp_path / "link").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "pipe"]


def test_a_failed_writer_writes_nothing_into_a_pipe(tmp_path: Path) -> None:
    read, write = os.pipe()
    with pytest.raises(ValueError, match="stop"), atomic_path(f"/dev/fd/{write}") as temporary:
        temporary.write_text("half")
        raise ValueError("stop")
    os.close(write)
    with os.fdopen(read) as stream:
        assert stream.read() == ""


def test_a_device_is_written_into(tmp_path: Path) -> None:
    """A private copy of /dev/null: a fault must not remove the real one."""
    try:
        os.mknod(tmp_path / "null", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("only root can make a device")
    write_text(tmp_path / "null", "text")
    assert stat.S_ISCHR((tmp_path / "null").stat().st_mode)
    assert [path.name for path in tmp_path.iterdir()] == ["null"]


WRITE = "import sys; from distilmos.files import write_text; write_text(sys.argv[1], 'text')"


@pytest.mark.parametrize("path", ["/dev/fd/1", "/proc/self/fd/1"])
def test_standard_output_is_appended_to_whether_a_file_or_a_pipe(tmp_path: Path, path: str) -> None:
    """A private link stands for /dev/stdout, which a fault would replace."""
    (tmp_path / "stdout").symlink_to(path)
    for name in (path, tmp_path / "stdout"):
        command = [sys.executable, "-c", WRITE, str(name)]
        with (tmp_path / "out").open("w") as out:
            out.write("before ")
            out.flush()
            subprocess.run(command, check=True, stdout=out)
            out.seek(0, os.SEEK_END)
            out.write(" after")
        assert (tmp_path / "out").read_text() == "before text after"
        assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "text"
