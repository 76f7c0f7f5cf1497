"""Files that appear whole or not at all."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from distilmos.files import atomic_path


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
