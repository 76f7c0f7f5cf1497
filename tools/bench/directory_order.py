"""Reference of the prediction benchmark: padded batches of a fixed number of files, in the order of the directory.

python tools/bench/directory_order.py DIR BATCH OUT does the work of the inference scripts of released models, including
that of DistilMOS: read BATCH files, pad them to the longest, run the network, continue with the next ones. Network and
weights are those of `distilmos predict`, so the scores are comparable.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from distilmos.data.audio import read_audio
from distilmos.model.directory import DEFAULT, find_model
from distilmos.model.package import load_model_dir
from distilmos.ssl.forward import pad_audio

if __name__ == "__main__":
    directory, batch_size, out = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    model = load_model_dir(find_model(DEFAULT))
    paths = sorted(directory.iterdir())
    with out.open("w", encoding="utf-8") as stream, torch.inference_mode():
        for start in range(0, len(paths), batch_size):
            chosen = paths[start : start + batch_size]
            audio, num_samples = pad_audio([torch.from_numpy(read_audio(path)) for path in chosen])
            scores = model(audio, num_samples, with_tokens=False).mos.tolist()
            for path, score in zip(chosen, scores, strict=True):
                stream.write(f"{path} {score}\n")
