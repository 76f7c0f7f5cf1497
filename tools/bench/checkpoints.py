"""Write fairseq checkpoints with random weights, for benchmarks without a downloaded encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


def write_hubert(path: Path, *, base: bool) -> str:
    """Write a HuBERT like fairseq's trainer: Base (12 layers of width 768), or of the size of hubert_tiny.

    Returns:
        description of the model for the report.
    """
    from fairseq.data.dictionary import Dictionary
    from fairseq.models.hubert.hubert import HubertConfig, HubertModel
    from fairseq.tasks.hubert_pretraining import HubertPretrainingConfig
    from omegaconf import OmegaConf

    torch.manual_seed(0)
    dictionary = Dictionary()
    for unit in range(100):
        dictionary.add_symbol(str(unit))
    tiny = {
        "conv_feature_layers": "[(96,10,5)] + [(96,3,2)] * 4 + [(96,2,2)] * 2",
        "encoder_layers": 6,
        "encoder_embed_dim": 192,
        "encoder_ffn_embed_dim": 768,
        "encoder_attention_heads": 4,
        "conv_pos": 64,
    }
    config = HubertConfig(label_rate=50, **({} if base else tiny))
    task = OmegaConf.structured(HubertPretrainingConfig(data=str(path.parent), labels=["km"], label_rate=50))
    model = HubertModel(config, task, [dictionary])
    structured = {"hubert": OmegaConf.structured(config), "hubert_pretraining": task}
    plain: dict[str, Any] = {name: OmegaConf.to_container(one, enum_to_str=True) for name, one in structured.items()}
    cfg = {
        "model": {**plain["hubert"], "_name": "hubert"},
        "task": {**plain["hubert_pretraining"], "_name": "hubert_pretraining"},
    }
    state = {
        "args": None,
        "cfg": cfg,
        "model": model.state_dict(),
        "optimizer_history": [{"num_updates": 0, "best_loss": 0.0}],
        "extra_state": {"train_iterator": {"epoch": 1}},
        "task_state": {"dictionaries": [dictionary]},
    }
    torch.save(state, path)
    size = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    shape = f"{config.encoder_layers} layers of width {config.encoder_embed_dim}"
    return f"HuBERT{' Base' if base else ''} ({shape}, {size:.0f} M parameters, random weights)"
