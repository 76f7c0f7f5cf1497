"""Reference of the training benchmark: training steps of SHEET's SSL-MOS with SHEET's own trainer.

python tools/bench/sheet_steps.py CHECKPOINT CSV STEPS WIDTH: CHECKPOINT is a fairseq checkpoint, which s3prl converts.
Model, data set, collater, loss, trainer and settings are SHEET's (SSL-MOS on BVCC: batches of 16 in random order, SGD
1e-3, momentum 0.9, clipped L1 loss, front end frozen, no loader processes). The script replaces the parts that the
installed versions lack: sheet.evaluation, which the wheel does not contain and only evaluation uses; torchaudio.load,
which newer versions of torchaudio leave to another package; torchaudio's sox_effects and set_audio_backend, which are
imported but not used. It maps the name of the encoder to its path. It prints the seconds of audio and of time, without
the first step.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import soundfile
import torch
import torchaudio


def _load(path: str, channels_first: bool) -> tuple[torch.Tensor, int]:
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return torch.from_numpy(samples), rate


class _Empty(ModuleType):
    """A module in which every name exists and is None."""

    def __getattr__(self, name: str) -> None:
        """Return None for every name."""
        if name.startswith("__"):
            raise AttributeError(name)


def _stand_ins() -> None:
    for name in ("sheet.evaluation", "sheet.evaluation.metrics", "sheet.evaluation.plot", "torchaudio.sox_effects"):
        sys.modules[name] = _Empty(name)
    torchaudio.sox_effects = sys.modules["torchaudio.sox_effects"]
    torchaudio.load = _load
    torchaudio.set_audio_backend = lambda name: None


def main(checkpoint: Path, csv: Path, steps: int, width: int) -> None:
    """Run `steps` steps after a first one and print their time."""
    _stand_ins()
    import s3prl.nn
    from s3prl.upstream.hubert.convert import load_and_convert_fairseq_ckpt
    from sheet.collaters.non_intrusive import NonIntrusiveCollater
    from sheet.datasets.non_intrusive import NonIntrusiveDataset
    from sheet.losses.basic_losses import ScalarLoss
    from sheet.models.sslmos import SSLMOS
    from sheet.trainers.non_intrusive import NonIntrusiveEstimatorTrainer
    from sheet.utils.model_io import freeze_modules

    converted = checkpoint.with_suffix(".s3prl.pt")
    if not converted.exists():
        load_and_convert_fairseq_ckpt(checkpoint, converted)
    original = s3prl.nn.S3PRLUpstream
    given: Any = partial(original, path_or_url=str(converted))
    given.available_names = original.available_names
    s3prl.nn.S3PRLUpstream = given
    model = SSLMOS("waveform", s3prl_name="hubert_local", ssl_model_output_dim=width)
    freeze_modules(model, ["ssl_model.upstream.model.feature_extractor"])
    torch.manual_seed(0)
    loader = torch.utils.data.DataLoader(
        NonIntrusiveDataset(str(csv), 16000), 16, shuffle=True, collate_fn=NonIntrusiveCollater("zero_padding")
    )
    with tempfile.TemporaryDirectory() as outdir:
        config = {
            "outdir": outdir,
            "model_input": "waveform",
            "distributed": False,
            "rank": 0,
            "train_max_steps": steps + 1,
            "log_interval_steps": 10**9,
            "eval_and_save_interval_steps": 10**9,
            "grad_norm": 1.0,
        }
        loss = {"type": "ScalarLoss", "criterion": ScalarLoss(tau=0.5, order=1), "weight": 1.0}
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 1e-3, momentum=0.9)
        seen: list[tuple[float, float]] = []

        class Trainer(NonIntrusiveEstimatorTrainer):
            def _train_step(self, batch: dict[str, Any]) -> None:
                super()._train_step(batch)
                seen.append((time.perf_counter(), float(batch["waveform_lengths"].sum()) / 16000))

        model.train()
        Trainer(0, 0, {"train": loader}, {}, model, {"mean_score_criterions": [loss]}, optimizer, None, config).run()
    audio = sum(seconds for _, seconds in seen[1:])
    print(json.dumps({"audio": audio, "seconds": seen[-1][0] - seen[0][0]}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
