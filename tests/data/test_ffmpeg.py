"""Formats that ffmpeg decodes are read whole, or refused."""

from __future__ import annotations

import subprocess
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile

from distilmos.data.audio import SAMPLE_RATE, audio_seconds, read_audio, stream_audio
from distilmos.data.recordings import find_recordings
from distilmos.errors import InputError, InputWarning

RATE = 44100
SECONDS = 4
FAST_START, FRAGMENTS = ["-movflags", "faststart"], ["-movflags", "empty_moov", "-frag_duration", "1000000"]
LIVE = ["-f", "webm", "-live", "1"]
VIDEO = ["-f", "lavfi", "-i", "testsrc=duration=6:size=64x64:rate=5"]
KINDS = {
    "a.m4a": [],
    "start.m4a": FAST_START,
    "fragments.mp4": FRAGMENTS,
    "video.mp4": [*VIDEO, "-map", "1:v", "-map", "0:a", "-c:v", "mpeg4"],
    "lossless.m4a": ["-c:a", "alac"],
    "a.webm": ["-c:a", "libopus"],
    "live.webm": ["-c:a", "libopus", *LIVE],
    "a.mka": ["-c:a", "libvorbis"],
    "lossless.mkv": ["-c:a", "flac"],
    "a.wma": ["-c:a", "wmav2"],
    "a.aac": [],
}
LOSSY_EDGE = 0.05  # seconds that an encoder may add or leave out at the ends


def encode(source: Path, target: Path, options: list[str]) -> None:
    command = ["ffmpeg", "-nostdin", "-y", "-loglevel", "error", "-i", source, *options, target]
    subprocess.run(command, check=True)


@pytest.fixture(scope="module")
def whole(ffmpeg: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with `source.wav`, two channels of different tones, and the files of KINDS made from it."""
    directory = tmp_path_factory.mktemp("whole")
    time = np.arange(SECONDS * RATE) / RATE
    noise = 0.02 * np.random.default_rng(0).standard_normal(time.size)
    tones = np.stack([0.3 * np.sin(2 * np.pi * frequency * time) + noise for frequency in (220, 330)], axis=1)
    soundfile.write(directory / "source.wav", tones, RATE)
    for name, options in KINDS.items():
        encode(directory / "source.wav", directory / name, options)
    return directory


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channel", [None, 2])
def test_a_file_has_the_samples_of_its_source(whole: Path, kind: str, channel: int | None) -> None:
    expected = read_audio(whole / "source.wav", channel=channel)
    found = read_audio(whole / kind, channel=channel)
    assert found.size == pytest.approx(expected.size, abs=LOSSY_EDGE * SAMPLE_RATE)
    assert audio_seconds(whole / kind) == pytest.approx(found.size / SAMPLE_RATE, abs=1e-4)
    start, shifts = SAMPLE_RATE, range(-1024, 1025)  # an encoder may delay the audio
    part = expected[start : start + 1000]
    errors = [float(np.abs(found[start + shift : start + shift + part.size] - part).mean()) for shift in shifts]
    assert min(errors) < 0.02 < float(np.abs(part).mean()) / 4
    blocks = list(stream_audio(whole / kind, 0.7, channel=channel))
    assert max(map(len, blocks)) <= 2 * SAMPLE_RATE
    np.testing.assert_allclose(np.concatenate(blocks), found, rtol=0, atol=1e-6)


def old_quicktime(data: bytes, first: bytes) -> bytes:
    """Return an MOV file without `ftyp`, whose first box is `first`; the audio stays where it is."""
    size = int.from_bytes(data[:4], "big")
    if first != b"moov":
        return size.to_bytes(4, "big") + first + data[8:]
    length = int.from_bytes(data[size : size + 4], "big")
    return data[size : size + length] + size.to_bytes(4, "big") + b"free" + data[8:size] + data[size + length :]


@pytest.mark.parametrize("first", ["moov", "wide", "free", "skip", "mdat"])
def test_quicktime_without_a_file_type(whole: Path, tmp_path: Path, first: str) -> None:
    encode(whole / "source.wav", tmp_path / "new.mov", FAST_START if first == "moov" else [])
    old = tmp_path / "old.mov"
    data = old_quicktime((tmp_path / "new.mov").read_bytes(), first.encode())
    old.write_bytes(data)
    assert np.array_equal(read_audio(old), read_audio(tmp_path / "new.mov"))
    for bad in (data[:-100], data + data):
        old.write_bytes(bad)
        with pytest.raises(InputError, match=rf"^{old}: "):
            read_audio(old)


def test_a_video_without_audio(ffmpeg: str, tmp_path: Path) -> None:
    video = tmp_path / "silent.mp4"
    subprocess.run([ffmpeg, "-nostdin", "-loglevel", "error", *VIDEO, "-c:v", "mpeg4", video], check=True)
    with pytest.raises(InputError, match=rf"^{video}: .*\baudio\b") as caught:
        read_audio(video)
    assert "ffmpeg" not in str(caught.value)


def test_the_content_decides_and_not_the_name(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes((whole / "a.m4a").read_bytes())
    (tmp_path / "-b.m4a").write_bytes((whole / "source.wav").read_bytes())
    (tmp_path / "http:c.wav").write_bytes((whole / "a.aac").read_bytes())
    assert np.array_equal(read_audio(tmp_path / "a.wav"), read_audio(whole / "a.m4a"))
    assert np.array_equal(read_audio(tmp_path / "-b.m4a"), read_audio(whole / "source.wav"))
    assert np.array_equal(read_audio(tmp_path / "http:c.wav"), read_audio(whole / "a.aac"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_cut_off_or_damaged_is_never_read_in_part(whole: Path, tmp_path: Path, kind: str) -> None:
    data = (whole / kind).read_bytes()
    bad = tmp_path / kind
    for end in (20, 1000, *(len(data) * part // 7 for part in range(1, 7)), len(data) - 100, len(data) - 1):
        bad.write_bytes(data[:end])
        with pytest.raises(InputError) as caught:
            read_audio(bad)
        assert str(caught.value).startswith(f"{bad}: ")
    generator = np.random.default_rng(0)
    size = read_audio(whole / kind).size
    for start in generator.integers(len(data) // 4, len(data) * 3 // 4, 3):
        bad.write_bytes(data[:start] + generator.bytes(200) + data[start + 200 :])
        try:
            found = read_audio(bad).size  # a decoder cannot notice every wrong bit
        except InputError as error:
            assert str(error).startswith(f"{bad}: ")
        else:
            assert found == size


def test_what_follows_the_audio(whole: Path, tmp_path: Path) -> None:
    tag = b"TAG".ljust(128, b" ")
    for name, rest in {"a.m4a": bytes(5), "start.m4a": bytes(999), "a.webm": bytes(999), "a.aac": tag}.items():
        (tmp_path / name).write_bytes((whole / name).read_bytes() + rest)
        assert np.array_equal(read_audio(tmp_path / name), read_audio(whole / name))
    (tmp_path / "id3.aac").write_bytes(b"ID3\4\0\0\0\0\0\5title" + (whole / "a.aac").read_bytes())
    assert np.array_equal(read_audio(tmp_path / "id3.aac"), read_audio(whole / "a.aac"))


@pytest.mark.parametrize("kind", KINDS)
def test_joined_files_are_read_whole_or_refused(whole: Path, tmp_path: Path, kind: str) -> None:
    (tmp_path / kind).write_bytes(2 * (whole / kind).read_bytes())
    try:
        found = read_audio(tmp_path / kind).size
    except InputError as error:
        assert str(error).startswith(f"{tmp_path / kind}: ")
    else:
        assert found == pytest.approx(2 * read_audio(whole / kind).size, abs=LOSSY_EDGE * SAMPLE_RATE)


def test_a_track_without_audio_and_a_live_stream_are_refused(whole: Path, tmp_path: Path) -> None:
    subprocess.run(["ffmpeg", "-loglevel", "error", *VIDEO, "-c:v", "mpeg4", tmp_path / "silent.mp4"], check=True)
    live = subprocess.run(
        ["ffmpeg", "-loglevel", "error", "-i", whole / "source.wav", "-f", "asf", "-"], capture_output=True, check=True
    )
    (tmp_path / "live.wma").write_bytes(live.stdout)
    for name in ("silent.mp4", "live.wma"):
        for read in (read_audio, audio_seconds):
            with pytest.raises(InputError, match=rf"{name}: "):
                read(tmp_path / name)


@pytest.mark.parametrize(
    "start", ["#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n", "ffconcat version 1.0\nfile {}\n"]
)
def test_a_playlist_opens_no_other_file(whole: Path, tmp_path: Path, start: str) -> None:
    for name in ("a.m4a", "a.m3u8"):
        (tmp_path / name).write_text(start.format(whole / "source.wav"))
        with pytest.raises(InputError, match=name.replace(".", r"\.")):
            read_audio(tmp_path / name)


def test_an_unfinished_reading_leaves_no_process(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []

    class Recorded(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Recorded)
    parts = stream_audio(whole / "lossless.m4a", 0.1)
    next(parts)
    assert len(started) == 1
    parts.close()
    assert started[0].returncode is not None


def test_a_long_file_is_not_held_in_memory(whole: Path, tmp_path: Path) -> None:
    loop = ["-filter:a", f"aloop=loop=-1:size={SECONDS * RATE},aresample={SAMPLE_RATE}", "-t", "300"]
    encode(whole / "source.wav", tmp_path / "long.mkv", [*loop, "-c:a", "flac"])
    tracemalloc.start()
    seconds = sum(map(len, stream_audio(tmp_path / "long.mkv", 5))) / SAMPLE_RATE
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seconds == pytest.approx(300, abs=LOSSY_EDGE)
    assert peak < 10e6  # all samples are 19 MB, and 38 MB before their channels are averaged


HEADS = {
    "MP4": b"\0\0\0\x1cftypM4A ",
    "WebM": b"\x1a\x45\xdf\xa3\x9f",
    "Windows": bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"),
    "AAC": b"ID3\4\0\0\0\0\0\3abc" + bytes.fromhex("fff15080012000"),
}


@pytest.mark.parametrize("name", HEADS)
def test_without_ffmpeg_the_error_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "a.x").write_bytes(HEADS[name].ljust(2000, b"\0"))
    for read in (read_audio, audio_seconds):
        with pytest.raises(InputError, match=rf"a\.x: .*{name}.*ffmpeg"):
            read(tmp_path / "a.x")


def make_directory(path: Path) -> None:
    (path / "sub").mkdir(parents=True)
    for name in ("a.wav", "b.m4a", "notes.md", "sub/c.M4A", "sub/d.flac", "sub/e.webm", ".hidden.m4a", "none"):
        (path / name).touch()


def found_in(path: Path) -> list[str]:
    return [recording.path.name for recording in find_recordings([str(path)])]


def test_a_directory_says_what_it_leaves_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_directory(tmp_path / "in")
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.warns(InputWarning) as caught:
        assert found_in(tmp_path / "in") == ["a.wav", "d.flac"]
    (text,) = [str(warning.message) for warning in caught]
    assert text.startswith(f"{tmp_path / 'in'}: 5 ")
    assert text.count("ffmpeg") == 2
    for part in ("2 .m4a", "1 .webm", "1 .md"):
        assert part in text
    (tmp_path / "bin" / "ffmpeg").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "bin" / "ffmpeg").chmod(0o755)
    with pytest.warns(InputWarning, match=rf"{tmp_path / 'in'}: 2 .*1 \.md"):
        assert found_in(tmp_path / "in") == ["a.wav", "b.m4a", "c.M4A", "d.flac", "e.webm"]
    for name in ("notes.md", "none"):
        (tmp_path / "in" / name).unlink()
    assert len(found_in(tmp_path / "in")) == 5  # without a warning
    (tmp_path / "bin" / "ffmpeg").unlink()
    for name in ("a.wav", "sub/d.flac"):
        (tmp_path / "in" / name).unlink()
    with pytest.raises(InputError, match=rf"{tmp_path / 'in'}: .*2 \.m4a"):
        find_recordings([str(tmp_path / "in")])
