"""The shape of a small encoder under fairseq's names, which WavLM and data2vec have too."""

from __future__ import annotations

from typing import Any

SMALL: dict[str, Any] = {
    "conv_feature_layers": "[(32,10,5)] + [(32,3,2)] * 4 + [(32,2,2)] * 2",
    "encoder_layers": 3,
    "encoder_embed_dim": 48,
    "encoder_ffn_embed_dim": 64,
    "encoder_attention_heads": 4,
    "conv_pos": 16,
    "conv_pos_groups": 4,
}
