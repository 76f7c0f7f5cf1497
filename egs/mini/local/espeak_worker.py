"""Speak sentences with eSpeak NG: a JSON list of [voice, words per minute, pitch, sentence] on stdin, audio on stdout.

Output: the sample rate, then for each sentence the number of samples and the samples; all little endian, the rate and
the numbers with 32 bits, the samples with 16 bits.

eSpeak NG keeps state between sentences (the phase of the voice's flutter, which nothing resets), so a sentence sounds
different after another one. Therefore a fork of the freshly started library speaks each sentence. This is a separate
program because forking is safe only in a process without other threads.
"""

from __future__ import annotations

import ctypes
import json
import os
import struct
import sys
import tempfile
from pathlib import Path
from typing import Any

import espeakng_loader

# Constants of eSpeak NG's speak_lib.h
AUDIO_OUTPUT_SYNCHRONOUS = 2
INITIALIZE_DONT_EXIT = 0x8000
POSITION_CHARACTER = 1
CHARS_UTF8 = 1
RATE = 1
PITCH = 3

SEED = 1
SYNTH_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class RequestError(Exception):
    """eSpeak NG refuses a voice or a sentence."""


def start_library(directory: Path) -> tuple[ctypes.CDLL, int]:
    """Load eSpeak NG.

    Args:
        directory: an empty directory; it must exist as long as the library is in use.

    Returns:
        the library, and its sample rate in Hz.
    """
    library = ctypes.CDLL(str(espeakng_loader.get_library_path()))
    library.espeak_ng_SetRandSeed.argtypes = [ctypes.c_long]
    library.espeak_Synth.argtypes = [
        *(ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int, ctypes.c_uint, ctypes.c_uint),
        *(ctypes.c_void_p, ctypes.c_void_p),
    ]
    # eSpeak NG refuses data paths of more than about 160 characters, which a virtual environment can exceed.
    link = directory / "espeak-ng-data"
    link.symlink_to(espeakng_loader.get_data_path())
    rate = library.espeak_Initialize(AUDIO_OUTPUT_SYNCHRONOUS, 0, os.fsencode(link), INITIALIZE_DONT_EXIT)
    if rate <= 0:
        sys.exit(f"eSpeak NG does not start with its voices in {espeakng_loader.get_data_path()}")
    return library, rate


def speak(library: ctypes.CDLL, voice: str, words_per_minute: int, pitch: int, sentence: str) -> bytes:
    """Return the 16-bit samples of a sentence; reproducible only for the first sentence of a process.

    Raises:
        RequestError: if eSpeak NG lacks the voice or cannot speak the sentence.
    """
    if library.espeak_SetVoiceByName(voice.encode()) != 0:
        raise RequestError(f"eSpeak NG has no voice {voice!r}")
    library.espeak_SetParameter(RATE, words_per_minute, 0)
    library.espeak_SetParameter(PITCH, pitch, 0)
    library.espeak_ng_SetRandSeed(SEED)
    audio = bytearray()

    def collect(samples: Any, count: int, _events: Any) -> int:  # pointers of ctypes
        if samples and count > 0:
            audio.extend(ctypes.string_at(samples, 2 * count))
        return 0

    callback = SYNTH_CALLBACK(collect)
    library.espeak_SetSynthCallback(callback)
    text = sentence.encode()
    status = library.espeak_Synth(text, len(text) + 1, 0, POSITION_CHARACTER, 0, CHARS_UTF8, None, None)
    if status != 0 or not any(audio):
        raise RequestError(f"eSpeak NG cannot say {sentence!r} with the voice {voice!r}")
    return bytes(audio)


def write_in_fork(library: ctypes.CDLL, voice: str, words_per_minute: int, pitch: int, sentence: str) -> None:
    """Write the number of samples and the samples of a sentence to stdout; the state of `library` does not change."""
    sys.stdout.buffer.flush()  # otherwise the fork would write the buffer, too
    child = os.fork()
    if child == 0:
        status = 1
        try:
            audio = speak(library, voice, words_per_minute, pitch, sentence)
            sys.stdout.buffer.write(struct.pack("<I", len(audio) // 2) + audio)
            sys.stdout.buffer.flush()
            status = 0
        except RequestError as error:
            print(error, file=sys.stderr, flush=True)
        finally:
            os._exit(status)
    if os.waitpid(child, 0)[1] != 0:
        sys.exit(1)


def main() -> None:
    """Speak every sentence of the list on stdin."""
    requests = json.load(sys.stdin)
    with tempfile.TemporaryDirectory() as directory:
        library, rate = start_library(Path(directory))
        sys.stdout.buffer.write(struct.pack("<I", rate))
        for voice, words_per_minute, pitch, sentence in requests:
            write_in_fork(library, voice, words_per_minute, pitch, sentence)


if __name__ == "__main__":
    main()
