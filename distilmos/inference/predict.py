"""Stage 6: predict MOS. A score depends on the recording alone, never on what it is batched with."""

from __future__ import annotations

from pathlib import Path

import torch

from distilmos.data.archive import read_scp
from distilmos.data.audio import audio_seconds
from distilmos.data.datadir import read_data_dir
from distilmos.errors import InputError
from distilmos.model.networks import MOSNetwork
from distilmos.ssl.forward import padded_batches


def find_recordings(inputs: list[str]) -> tuple[dict[str, tuple[Path, int | None]], dict[str, float]]:
    """Resolve what a user names to recordings.

    Args:
        inputs: data directories, `wav.scp` files or audio files. An audio file's path is its utterance id.

    Returns:
        utterance -> location, and utterance -> seconds.

    Raises:
        InputError: if an input does not exist, or two recordings have the same id.
    """
    wavs: dict[str, tuple[Path, int | None]] = {}
    durations: dict[str, float] = {}
    for name in inputs:
        path = Path(name)
        if path.is_dir():
            data = read_data_dir(path, rated=False)
            found, seconds = data.wavs, data.durations
        elif path.suffix == ".scp":
            found = read_scp(path)
            seconds = {utterance: audio_seconds(*location) for utterance, location in found.items()}
        else:
            found, seconds = {name: (path, None)}, {name: audio_seconds(path)}
            if len(name.split()) != 1:
                raise InputError(f"{name!r}: an utterance id cannot have white space; list the file in a wav.scp")
        for utterance in found.keys() & wavs.keys():
            raise InputError(f"{name}: {utterance} is in another input too")
        wavs |= found
        durations |= seconds
    return wavs, durations


def predict(
    model: MOSNetwork,
    wavs: dict[str, tuple[Path, int | None]],
    durations: dict[str, float],
    device: torch.device,
    batch_seconds: float,
) -> dict[str, float]:
    """Predict the MOS of recordings.

    Args:
        model: in evaluation mode, on `device`.
        wavs: utterance -> location of its audio.
        durations: utterance -> seconds.
        device: where to compute.
        batch_seconds: padded seconds in one forward pass.

    Returns:
        utterance -> MOS, in the order of `wavs`.

    Raises:
        InputError: if a recording is unreadable.
    """
    scores: dict[str, float] = {}
    for group, audio, num_samples in padded_batches(wavs, durations, batch_seconds):
        with torch.inference_mode():
            mos = model(audio.to(device), num_samples.to(device)).mos
        scores.update(zip(group, mos.tolist(), strict=True))
    return {utterance: scores[utterance] for utterance in wavs}
