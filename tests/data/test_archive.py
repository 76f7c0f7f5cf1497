from __future__ import annotations

import pickle
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from distilmos.data.archive import load_array, merge_archives, open_archive, read_scp, shard_of
from distilmos.errors import InputError

kaldiio = pytest.importorskip("kaldiio")


def arrays(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {f"u{seed}-{n}": generator.normal(size=(n + 1, 3)).astype(np.float32) for n in range(count)}


def write(stem: Path, values: dict) -> None:
    with open_archive(stem) as archive:
        for utterance, value in values.items():
            archive.write(utterance, value)


def test_kaldiio_reads_matrices_vectors_and_audio(tmp_path: Path) -> None:
    values = arrays(3) | {"ids": np.arange(7, dtype=np.int32)}
    write(tmp_path / "x.1", values)
    loaded = kaldiio.load_scp(str(tmp_path / "x.1.scp"))
    assert set(loaded) == set(values)
    for utterance, value in values.items():
        assert loaded[utterance].dtype == value.dtype
        np.testing.assert_array_equal(loaded[utterance], value)
        np.testing.assert_array_equal(load_array(read_scp(tmp_path / "x.1.scp")[utterance]), value)
    assert set(dict(kaldiio.load_ark(str(tmp_path / "x.1.ark")))) == set(values)
    samples = np.array([0, 1, -32768, 32767], np.int16)
    write(tmp_path / "wav", {"a": (16000, samples), "b": (16000, samples[::-1])})
    rate, read = kaldiio.load_scp(str(tmp_path / "wav.scp"))["b"]
    assert rate == 16000
    np.testing.assert_array_equal(read, samples[::-1])


def test_integer_vectors_are_in_kaldis_own_format(tmp_path: Path) -> None:
    write(tmp_path / "x", {"a": np.array([5, -1], np.int32)})
    expected = b"a \0B\4" + (2).to_bytes(4, "little") + b"\4\5\0\0\0\4\xff\xff\xff\xff"
    assert (tmp_path / "x.ark").read_bytes() == expected


@pytest.mark.skipif(shutil.which("copy-feats") is None, reason="Kaldi is not installed")
def test_kaldi_reads_matrices(tmp_path: Path) -> None:
    write(tmp_path / "x", arrays(3))
    command = ["copy-feats", f"scp:{tmp_path}/x.scp", f"ark:{tmp_path}/y.ark"]
    assert subprocess.run(command, check=False).returncode == 0
    assert (tmp_path / "y.ark").read_bytes() == (tmp_path / "x.ark").read_bytes()


def test_merged_shards_hold_the_same_values(tmp_path: Path) -> None:
    parts = [arrays(3, 2), {}, arrays(2, 1)]
    shards = [tmp_path / f"x.{job}" for job in (1, 2, 3)]
    for shard, part in zip(shards, parts, strict=True):
        write(shard, part)
    assert merge_archives(shards, tmp_path / "x") == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.ark", "x.scp"]
    loaded = kaldiio.load_scp(str(tmp_path / "x.scp"))
    assert list(loaded) == sorted(loaded)
    for utterance, value in (parts[0] | parts[2]).items():
        np.testing.assert_array_equal(loaded[utterance], value)


def test_shards_that_overlap_or_lack_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "x.1", arrays(2))
    write(tmp_path / "x.2", arrays(1))
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=r"x\.2\.scp: u0-0 "):
        merge_archives([tmp_path / "x.1", tmp_path / "x.2"], tmp_path / "x")
    assert sorted(tmp_path.iterdir()) == before
    for lacking in ("x.2.ark", "x.2.scp"):  # the scp is checked first
        (tmp_path / lacking).unlink()
        with pytest.raises(InputError, match=rf"^{re.escape(str(tmp_path / lacking))}: "):
            merge_archives([tmp_path / "x.1", tmp_path / "x.2"], tmp_path / "x")
    assert not (tmp_path / "x.ark").exists()


def test_a_fault_leaves_the_old_archive(tmp_path: Path) -> None:
    write(tmp_path / "x", {"a": np.zeros((1, 1), np.float32)})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(RuntimeError), open_archive(tmp_path / "x") as archive:
        archive.write("b", np.ones((1, 1), np.float32))
        raise RuntimeError
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_killed_writer_leaves_no_archive(tmp_path: Path) -> None:
    body = "import numpy as np, os, signal, sys\nfrom distilmos.data.archive import open_archive\n"
    body += "with open_archive(sys.argv[1]) as archive:\n    archive.write('a', np.zeros((9999, 9), np.float32))\n"
    body += "    os.kill(os.getpid(), signal.SIGKILL)\n"
    done = subprocess.run([sys.executable, "-c", body, str(tmp_path / "x")], check=False)
    assert done.returncode == -signal.SIGKILL
    assert [path for path in tmp_path.iterdir() if not path.name.startswith(".")] == []


def test_a_kill_between_ark_and_scp_leaves_no_old_scp(tmp_path: Path) -> None:
    write(tmp_path / "x", arrays(2))
    body = "import numpy as np, os, signal, sys\nfrom distilmos.data import archive\n"
    body += "archive.write_table = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
    body += "with archive.open_archive(sys.argv[1]) as opened:\n    opened.write('a', np.zeros((9, 9), np.float32))\n"
    done = subprocess.run([sys.executable, "-c", body, str(tmp_path / "x")], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "x.scp").exists()


@pytest.mark.parametrize(
    "location", ["touch {0} |", "touch {0} |:0", "| touch {0}", "touch {0}|", "cat /dev/null; touch {0} | :3"]
)
def test_commands_in_scp_are_refused_and_not_run(tmp_path: Path, location: str) -> None:
    executed = tmp_path / "executed"
    (tmp_path / "x.scp").write_text(f"a /x.wav\nb {location.format(executed)}\nc touch {executed} |\n")
    with pytest.raises(InputError, match=re.escape(repr(location.format(executed)))) as caught:
        read_scp(tmp_path / "x.scp")
    assert f"{tmp_path}/x.scp:2: b: " in str(caught.value)
    assert f"{tmp_path}/x.scp:3: c: " in str(caught.value)
    with pytest.raises(InputError):
        load_array((Path(f"touch {executed} |"), 0))
    assert not executed.exists()


class Evil:
    """Unpickling this creates a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (Path(self.path),))


@pytest.mark.parametrize("prefix", [b"PKL", b"NPY"])
def test_a_pickle_in_an_archive_is_refused_and_not_loaded(tmp_path: Path, prefix: bytes) -> None:
    executed = tmp_path / "executed"
    (tmp_path / "x.ark").write_bytes(prefix + pickle.dumps(Evil(str(executed))))
    with pytest.raises(InputError, match=rf"^{re.escape(str(tmp_path))}/x\.ark: .*\b0\b"):
        load_array((tmp_path / "x.ark", 0))
    assert not executed.exists()


def test_a_path_with_colon_and_a_missing_or_cut_archive(tmp_path: Path) -> None:
    stem = tmp_path / "a:b" / "x"
    write(stem, {"a": np.ones((500, 4), np.float32), "b": np.arange(99, dtype=np.int32)})
    locations = read_scp(stem.with_name("x.scp"))
    assert load_array(locations["a"]).shape == (500, 4)
    ark = locations["a"][0]
    whole = ark.read_bytes()
    for size in (len(whole) - 5, 4000, 10, 3, 0):
        ark.write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"x\.ark"):
            load_array(locations["b"])
        if size < 8000:
            with pytest.raises(InputError, match=r"x\.ark"):
                load_array(locations["a"])
    for damaged in (whole.replace(b"\4\7\0\0\0", b"\2\7\0\0\0"), whole.replace(b"\4\x63\0\0\0", b"\4\x63\0\0\xff")):
        assert damaged != whole
        ark.write_bytes(damaged)
        with pytest.raises(InputError, match=r"x\.ark"):
            load_array(locations["b"])
    ark.unlink()
    with pytest.raises(InputError, match=rf"^{re.escape(str(ark))}: "):
        load_array(locations["a"])


@pytest.mark.parametrize(("rows", "columns"), [(2**31 - 1, 300), (2**31 - 1, 2**31 - 1)])
def test_a_damaged_shape_does_not_decide_how_much_memory_is_asked_for(tmp_path: Path, rows: int, columns: int) -> None:
    sizes = b"".join(b"\4" + size.to_bytes(4, "little") for size in (rows, columns))
    (tmp_path / "x.ark").write_bytes(b"u \0BFM " + sizes + bytes(24))
    with pytest.raises(InputError, match=rf"^{re.escape(str(tmp_path))}/x\.ark: .*\b2\b") as caught:
        load_array((tmp_path / "x.ark", 2))
    assert not isinstance(caught.value.__context__, MemoryError)


@pytest.mark.parametrize("length", [3, 2**31 - 1, -1])
def test_a_damaged_length_of_integers_neither(tmp_path: Path, length: int) -> None:
    integers = b"\4\1\0\0\0\4\2\0\0\0"
    (tmp_path / "x.ark").write_bytes(b"u \0B\4" + length.to_bytes(4, "little", signed=True) + integers)
    with pytest.raises(InputError, match=rf"^{re.escape(str(tmp_path))}/x\.ark: .*\b2\b") as caught:
        load_array((tmp_path / "x.ark", 2))
    assert not isinstance(caught.value.__context__, MemoryError)


def test_shards_cover_all_keys_once_and_evenly() -> None:
    keys = [f"k{n}" for n in range(10)]
    shares = [shard_of(keys[::-1], job, 4) for job in range(1, 5)]
    assert [key for share in shares for key in share] == keys
    assert {len(share) for share in shares} <= {2, 3}
    assert shard_of(["a"], 1, 3) + shard_of(["a"], 2, 3) + shard_of(["a"], 3, 3) == ["a"]
    for job in (0, 5):
        with pytest.raises(InputError):
            shard_of(keys, job, 4)
