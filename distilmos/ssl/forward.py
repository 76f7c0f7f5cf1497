"""Padded batches of recordings, and the hidden states of all layers in one forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from distilmos.data.audio import SAMPLE_RATE, read_audio
from distilmos.data.packing import pack_by_length
from distilmos.errors import InputError, raise_faults
from distilmos.ssl.config import EncoderConfig
from distilmos.ssl.encoder import SSLEncoder
from distilmos.ssl.fairseq_module import FairseqModule
from distilmos.ssl.features import FrameFeatures


def choose_device(name: str = "auto") -> torch.device:
    """Return the device called `name`; "auto" is the GPU if there is one, otherwise the CPU.

    Raises:
        InputError: if this machine does not have it.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {name!r} cannot be used: {str(error).splitlines()[0]}") from None
    return device


def group_by_seconds(durations: dict[str, float], budget: float) -> list[list[str]]:
    """Group recordings of similar length so that each padded group fits a budget.

    Args:
        durations: utterance -> seconds.
        budget: padded seconds of a group (longest times count); a longer recording forms its own group.

    Returns:
        groups of utterance ids, longest first, so that a lack of memory shows in the first group.
    """
    names = sorted(durations)
    batches = pack_by_length([durations[name] for name in names], budget)
    return [[names[index] for index in batch] for batch in batches]


def pad_audio(recordings: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Stack waveforms (N,) of different lengths with zero padding as (B, N); return it and the lengths (B,)."""
    return pad_sequence(recordings, batch_first=True), torch.tensor([len(recording) for recording in recordings])


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a CPU tensor to a device; to a GPU from pinned memory, without waiting for the copy."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def padded_batches(
    wavs: dict[str, tuple[Path, int | None]], durations: dict[str, float], batch_seconds: float
) -> Iterator[tuple[list[str], Tensor, Tensor]]:
    """Read recordings in groups of similar length.

    Args:
        wavs: utterance -> location of its audio.
        durations: utterance -> seconds, for the utterances to read.
        batch_seconds: padded seconds of a batch.

    Yields:
        utterance ids, zero padded 16 kHz waveforms (B, N), and the numbers of valid samples (B,).

    Raises:
        InputError: after the last batch, naming every unreadable recording; its batch is yielded without it.
    """
    faults = []

    def read(group: list[str]) -> dict[str, Tensor]:
        recordings = {}
        for utterance in group:
            try:
                recordings[utterance] = torch.from_numpy(read_audio(*wavs[utterance]))
            except InputError as error:
                faults.append(f"{utterance}: {error}")
        return recordings

    groups = group_by_seconds(durations, batch_seconds)
    with ThreadPoolExecutor(1) as reader:
        # Read the next batch while the caller computes on this one, so that a GPU does not wait for the disk.
        ahead = [reader.submit(read, group) for group in groups[:1]]
        for number in range(len(groups)):
            recordings = ahead.pop().result()
            ahead += [reader.submit(read, group) for group in groups[number + 1 : number + 2]]
            if recordings:
                yield list(recordings), *pad_audio(list(recordings.values()))
    raise_faults(faults, "reading the recordings")


def check_lengths(config: EncoderConfig, durations: Mapping[str, float], where: Callable[[str], str] = str) -> None:
    """Check that an encoder can read recordings, given as utterance -> seconds; see `hidden_states` for `where`.

    Raises:
        InputError: naming the recordings that are too long.
    """
    longest = config.max_seconds
    if longest is None:
        return
    faults = [f"{where(utterance)}: {seconds:.2f} s" for utterance, seconds in durations.items() if seconds > longest]
    raise_faults(faults, f"recordings longer than the {longest:.2f} s that the encoder reads: leave them out")


def hidden_states(
    encoder: SSLEncoder | FairseqModule | FrameFeatures,
    wavs: dict[str, tuple[Path, int | None]],
    durations: dict[str, float],
    device: torch.device,
    batch_seconds: float,
    dtype: torch.dtype = torch.float32,
    where: Callable[[str], str] = str,
) -> Iterator[tuple[str, list[Tensor]]]:
    """Run each recording once through the encoder.

    Args:
        encoder: in evaluation mode, on `device`.
        wavs: utterance -> location of its audio.
        durations: utterance -> seconds, for the utterances to run.
        device: device to compute on.
        batch_seconds: padded seconds in one forward pass.
        dtype: type of products and convolutions; bfloat16 uses autocast.
        where: returns the place of an utterance's duration, the start of a fault's line.

    Yields:
        an utterance id and its L hidden states (T, D), float32 on `device`; long recordings first.

    Raises:
        InputError: if a recording is unreadable, too long for the encoder, or its length differs from `durations`.
    """
    if isinstance(encoder, SSLEncoder):
        check_lengths(encoder.config, durations, where)
    for group, audio, num_samples in padded_batches(wavs, durations, batch_seconds):
        for utterance, samples in zip(group, num_samples.tolist(), strict=True):
            expected = round(durations[utterance] * SAMPLE_RATE)
            if samples != expected:
                raise InputError(f"{where(utterance)}: {expected} samples, but {wavs[utterance][0]} has {samples}")
        with torch.inference_mode(), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            layers, num_frames = encoder(to_device(audio, device), num_samples.to(device))
        for index, (utterance, frames) in enumerate(zip(group, num_frames.tolist(), strict=True)):
            yield utterance, [layer[index, :frames].float() for layer in layers]
