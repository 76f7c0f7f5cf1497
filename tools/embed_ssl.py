"""Turn an SSL checkpoint into the half-precision form that ships with the package.

python3 tools/embed_ssl.py hubert_tiny.pt distilmos/ssl/assets/hubert_tiny.safetensors
"""

from __future__ import annotations

import sys

from distilmos.ssl.load import load_ssl
from distilmos.ssl.store import save_encoder

if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    save_encoder(load_ssl(sys.argv[1]), sys.argv[2], half=True)
