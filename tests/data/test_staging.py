"""Copies on a local disk: one per file, removed afterwards, errors named."""

from __future__ import annotations

import pytest

from distilmos.data.staging import staged
from distilmos.errors import FailedError, InputError


def test_copies_exist_only_in_the_block(tmp_path, monkeypatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    files = [tmp_path / "train" / "wav.ark", tmp_path / "dev" / "wav.ark"]
    for number, file in enumerate(files):
        file.parent.mkdir()
        file.write_bytes(bytes([number]) * 100)
    with staged([*files, *files]) as copies:
        assert [copies[file].read_bytes() for file in files] == [file.read_bytes() for file in files]
        assert len(list(scratch.rglob("*.ark"))) == 2
    assert not list(scratch.iterdir())
    with pytest.raises(FailedError, match=r"no\.ark"), staged([tmp_path / "no.ark"]):
        pass
    assert not list(scratch.iterdir())


@pytest.mark.parametrize("value", [None, "", "/no/such/directory"])
def test_without_tmpdir_it_is_refused(monkeypatch, value):
    monkeypatch.delenv("TMPDIR", raising=False)
    if value is not None:
        monkeypatch.setenv("TMPDIR", value)
    with pytest.raises(InputError, match=f"TMPDIR.*{value or ''}"), staged([]):
        pass
