"""Audio is read whole, in one decoding, or refused: files from pipes, joined files, and files that are cut off."""

from __future__ import annotations

from pathlib import Path

import kaldiio
import numpy as np
import pytest
import soundfile

from distilmos.data.audio import SAMPLE_RATE, audio_seconds, read_audio, stream_audio
from distilmos.errors import InputError

CASES = Path(__file__).resolve().parents[1] / "cases"
FORMATS = [
    ("WAV", "PCM_16"),
    ("WAV", "FLOAT"),
    ("WAVEX", "PCM_24"),
    ("RF64", "PCM_16"),
    ("W64", "PCM_16"),
    ("AIFF", "PCM_16"),
    ("AU", "PCM_16"),
    ("CAF", "PCM_16"),
    ("CAF", "ALAC_16"),
    ("NIST", "PCM_16"),
    ("FLAC", "PCM_16"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
    ("MP3", "MPEG_LAYER_III"),
]


def tone(seconds: float, rate: int = SAMPLE_RATE) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(0).standard_normal(time.size)
    return 0.3 * np.sin(2 * np.pi * 220 * time) + 0.02 * noise


def write_mp3(path: Path, seconds: float, rate: int, mode: str) -> np.ndarray:
    """Write an MP3 file with libsndfile, which puts an Info frame first; return what it decodes to."""
    soundfile.write(path, tone(seconds, rate), rate, format="MP3", bitrate_mode=mode, compression_level=0.5)
    return read_audio(path)


def without_info(path: Path) -> bytes:
    """Return an MP3 file without its first frame, the Info frame."""
    data = path.read_bytes()
    head = data[:2]
    start = data.index(head, 4)
    while data[start : start + 2] != head or b"LAME" in data[start : start + 200]:
        start = data.index(head, start + 1)
    return data[start:]


@pytest.mark.parametrize(
    ("name", "seconds"),
    [
        ("cbr_44100_no_info.mp3", 8.086),
        ("vbr_44100_no_xing.mp3", 8.034),
        ("vbr_44100_62s.mp3", 62.0),
        ("chained.ogg", 4.0),
        ("unknown_length.flac", 2.0),
        ("unknown.w64", 2.0),
        ("unknown.au", 2.0),
        ("ff.rf64", 2.0),
        ("data0.wav", 2.0),
        ("data_plus8.wav", 2.0),
    ],
)
def test_all_of_a_file_is_read(name: str, seconds: float) -> None:
    assert audio_seconds(CASES / name) == pytest.approx(seconds, abs=1e-3)
    samples = read_audio(CASES / name)
    assert samples.size / SAMPLE_RATE == pytest.approx(seconds, abs=1e-3)
    assert np.abs(samples[-SAMPLE_RATE // 2 :]).max() > 0.001  # up to its end


@pytest.mark.parametrize("name", ["vbr_44100_62s.mp3", "vbr_44100_no_xing.mp3", "chained.ogg", "unknown_length.flac"])
@pytest.mark.parametrize("block_seconds", [0.7, 30.0])
def test_blocks_are_those_of_one_decoding(name: str, block_seconds: float) -> None:
    blocks = np.concatenate(list(stream_audio(CASES / name, block_seconds)))
    np.testing.assert_allclose(blocks, read_audio(CASES / name), rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
@pytest.mark.parametrize("rate", [44100, 22050, 16000, 8000])
def test_an_mp3_needs_no_info_frame(tmp_path: Path, mode: str, rate: int) -> None:
    whole = write_mp3(tmp_path / "whole.mp3", 3, rate, mode)
    (tmp_path / "bare.mp3").write_bytes(without_info(tmp_path / "whole.mp3"))
    bare = read_audio(tmp_path / "bare.mp3")
    # Without the Info frame nothing says how much of the encoder's padding to leave out: two frames at most.
    assert 0 <= bare.size - whole.size <= 2 * 1152 * SAMPLE_RATE / rate
    assert audio_seconds(tmp_path / "bare.mp3") == pytest.approx(bare.size / SAMPLE_RATE, abs=1e-3)


def test_an_info_frame_with_a_wrong_number_is_not_believed(tmp_path: Path) -> None:
    write_mp3(tmp_path / "a.mp3", 3, 16000, "CONSTANT")
    data = bytearray((tmp_path / "a.mp3").read_bytes())
    at = data.index(b"Info") + 8
    frames = int.from_bytes(data[at : at + 4], "big")
    data[at : at + 4] = (frames // 2).to_bytes(4, "big")
    (tmp_path / "half.mp3").write_bytes(data)
    assert audio_seconds(tmp_path / "half.mp3") >= 3
    data[at : at + 4] = (frames + 9).to_bytes(4, "big")
    (tmp_path / "more.mp3").write_bytes(data)
    with pytest.raises(InputError, match=r"more\.mp3"):
        audio_seconds(tmp_path / "more.mp3")


def test_joined_files_are_read_one_after_the_other(tmp_path: Path) -> None:
    first = write_mp3(tmp_path / "a.mp3", 2, 16000, "CONSTANT")
    second = write_mp3(tmp_path / "b.mp3", 1, 16000, "VARIABLE")
    tag = b"ID3\x04\x00\x00\x00\x00\x00\x05title"
    joined = tag + (tmp_path / "a.mp3").read_bytes() + tag + (tmp_path / "b.mp3").read_bytes() + b"TAG".ljust(128, b" ")
    (tmp_path / "joined.mp3").write_bytes(joined)
    np.testing.assert_array_equal(read_audio(tmp_path / "joined.mp3"), np.concatenate([first, second]))
    assert audio_seconds(tmp_path / "joined.mp3") == 3.0
    soundfile.write(tmp_path / "other.ogg", tone(1, 8000), 8000)
    mixed = (CASES / "chained.ogg").read_bytes() + (tmp_path / "other.ogg").read_bytes()
    (tmp_path / "mixed.ogg").write_bytes(mixed)
    with pytest.raises(InputError, match=r"mixed\.ogg"):
        read_audio(tmp_path / "mixed.ogg")


@pytest.mark.parametrize(("kind", "subtype"), FORMATS)
@pytest.mark.parametrize("part", [0.5, 0.9, 0.99])
def test_a_file_that_is_cut_off_is_never_read_in_part(tmp_path: Path, kind: str, subtype: str, part: float) -> None:
    soundfile.write(tmp_path / "whole", tone(2), SAMPLE_RATE, format=kind, subtype=subtype)
    assert read_audio(tmp_path / "whole").size == pytest.approx(2 * SAMPLE_RATE, abs=1)
    data = (tmp_path / "whole").read_bytes()
    (tmp_path / "cut").write_bytes(data[: int(part * len(data))])
    with pytest.raises(InputError, match=str(tmp_path / "cut")):
        read_audio(tmp_path / "cut")


def test_an_empty_wav_with_other_chunks_stays_empty(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(0), SAMPLE_RATE, subtype="PCM_16")
    data = (tmp_path / "a.wav").read_bytes()
    assert data[-8:] == b"data\0\0\0\0"
    (tmp_path / "a.wav").write_bytes(data + b"LIST\4\0\0\0INFO")
    with pytest.raises(InputError, match=r"a\.wav"):
        read_audio(tmp_path / "a.wav")


def test_audio_archives_of_espnet_are_read(tmp_path: Path) -> None:
    for utterance, location in (line.split() for line in (CASES / "flac_ark" / "wav.scp").read_text().splitlines()):
        name, _, offset = location.partition(":")
        ours = read_audio(CASES / "flac_ark" / name, int(offset))
        rate, theirs = kaldiio.load_mat(f"{CASES / 'flac_ark' / name}:{offset}")
        assert rate == SAMPLE_RATE, utterance
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    cut = (CASES / "flac_ark" / "flacark.ark").read_bytes()[:20000]
    (tmp_path / "cut.ark").write_bytes(cut)
    with pytest.raises(InputError, match=r"cut\.ark"):
        read_audio(tmp_path / "cut.ark", 5)
