"""Run a script of fairseq's examples/hubert/simple_kmeans unchanged, also without a GPU.

python tools/bench/simple_kmeans.py SCRIPT ARGUMENT...: SCRIPT is dump_hubert_feature, learn_kmeans or dump_km_label.
The scripts always call `.cuda()`; without a GPU, it returns its object. fairseq always imports torchaudio.sox_effects,
which newer versions of torchaudio do not have; an empty module replaces it.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from types import ModuleType

import fairseq
import torch

SCRIPTS = Path(fairseq.__file__).parent / "examples" / "hubert" / "simple_kmeans"

if __name__ == "__main__":
    if not torch.cuda.is_available():
        torch.Tensor.cuda = torch.nn.Module.cuda = lambda self: self  # type: ignore[method-assign, assignment, misc]
    sys.modules.setdefault("torchaudio.sox_effects", ModuleType("torchaudio.sox_effects"))
    script = SCRIPTS / f"{sys.argv[1]}.py"
    sys.path.insert(0, str(SCRIPTS))
    sys.argv = [str(script), *sys.argv[2:]]
    runpy.run_path(str(script), run_name="__main__")
