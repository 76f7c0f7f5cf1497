"""Stage 6: predict MOS. A score depends on the recording alone, never on what it is batched with."""

from __future__ import annotations

from pathlib import Path

import torch

from distilmos.data.archive import read_scp
from distilmos.data.audio import audio_seconds
from distilmos.data.datadir import read_data_dir
from distilmos.data.tables import is_utf8
from distilmos.errors import InputError, raise_faults
from distilmos.model.networks import MOSNetwork
from distilmos.ssl.forward import padded_batches


def find_recordings(inputs: list[str]) -> tuple[dict[str, tuple[Path, int | None]], dict[str, float]]:
    """Resolve what a user names to recordings.

    Args:
        inputs: data directories, `wav.scp` files or audio files. An audio file's path is its utterance id.

    Returns:
        utterance -> location, and utterance -> seconds, of which the header of the recording tells.

    Raises:
        InputError: if an input does not exist; or naming every recording whose id is no utterance id or that of another
            one, and every one whose header is unreadable or tells of less than 25 ms.
    """
    wavs: dict[str, tuple[Path, int | None]] = {}
    durations: dict[str, float] = {}
    faults: list[str] = []
    for name in inputs:
        for utterance, location in _recordings(name).items():
            if utterance in wavs:
                faults.append(f"{name}: {utterance} is in another input too")
            elif len(utterance.split()) != 1 or not is_utf8(utterance):
                reason = "an utterance id is UTF-8 text without white space; list the file in a wav.scp"
                faults.append(f"{utterance!r}: {reason}")
            else:
                wavs[utterance] = location
                try:
                    durations[utterance] = audio_seconds(*location)
                except InputError as error:
                    faults.append(str(error) if utterance == name else f"{name}: {utterance}: {error}")
    raise_faults(faults, "looking for the recordings")
    return wavs, durations


def _recordings(name: str) -> dict[str, tuple[Path, int | None]]:
    path = Path(name)
    if path.is_dir():
        return read_data_dir(path, rated=False).wavs
    return read_scp(path) if path.suffix == ".scp" else {name: (path, None)}


def predict(
    model: MOSNetwork,
    wavs: dict[str, tuple[Path, int | None]],
    durations: dict[str, float],
    device: torch.device,
    batch_seconds: float,
    corpus: str | None = None,
) -> dict[str, float]:
    """Predict the MOS of recordings.

    Args:
        model: in evaluation mode, on `device`.
        wavs: utterance -> location of its audio.
        durations: utterance -> seconds.
        device: where to compute.
        batch_seconds: padded seconds in one forward pass.
        corpus: one that the model was trained on, on whose scale the scores shall be; None for their mean scale.

    Returns:
        utterance -> MOS, in the order of `wavs`.

    Raises:
        InputError: naming every recording that is unreadable; or if the model does not know `corpus`.
    """
    offset = _offset(model, corpus)
    scores: dict[str, float] = {}
    for group, audio, num_samples in padded_batches(wavs, durations, batch_seconds):
        with torch.inference_mode():
            mos = model(audio.to(device), num_samples.to(device)).mos
        scores.update(zip(group, (mos + offset).tolist(), strict=True))
    return {utterance: scores[utterance] for utterance in wavs}


@torch.inference_mode()
def _offset(model: MOSNetwork, corpus: str | None) -> float:
    if corpus is None:
        return 0.0
    names = model.corpus_offsets.names if model.corpus_offsets else ()
    if model.corpus_offsets is None or corpus not in names:
        known = ", ".join(names) or "a single one: it has no scales to choose from"
        raise InputError(f"the model was not trained on a corpus {corpus!r} among others, but on {known}")
    device = model.corpus_offsets.values.device
    return float(model.corpus_offsets(torch.tensor(names.index(corpus), device=device)))
