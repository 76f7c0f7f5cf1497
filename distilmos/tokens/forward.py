"""One forward pass over a job's share of a data directory into archives, for stages 2 and 4."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor, bfloat16, device, float32, stack

from distilmos.data.archive import open_archive, shard_of
from distilmos.data.audio import SAMPLE_RATE
from distilmos.data.datadir import DataDir, read_data_dir
from distilmos.data.dump import SHARDS
from distilmos.errors import InputError
from distilmos.ssl.encoder import SSLEncoder
from distilmos.ssl.fairseq_module import FairseqModule, load_fairseq_module
from distilmos.ssl.features import FEATURES, FrameFeatures
from distilmos.ssl.forward import choose_device, hidden_states
from distilmos.ssl.load import find_checkpoint, load_ssl
from distilmos.tokens.info import TokenInfo

# Default size of a batch. On a CPU, the output of a layer should stay in the cache: HuBERT Base on two cores processes
# 11 s of audio per second with 8, 9.3 with 15, 7.6 with 30 and 6.4 with 60. A GPU needs larger batches.
BATCH_SECONDS = 10.0
POOLED = "pooled"  # archive of the layers pooled over time
PRECISIONS = {"float32": float32, "bfloat16": bfloat16}


@dataclass(frozen=True)
class ForwardOptions:
    """Settings of a forward pass over a data directory.

    Attributes:
        ssl: name or path of the encoder; or a name of FEATURES, which take its place.
        data_dir: data directory, for example dump/raw/train.
        out_dir: directory of the output, `shards/NAME.JOB.{ark,scp}`.
        device: "auto", "cpu", "cuda", ...
        batch_seconds: padded seconds in one forward pass.
        job: number of this job, 1..jobs.
        jobs: number of jobs that share the recordings.
        backend: "distilmos", or "fairseq" for SSL models that only fairseq's own module supports.
        user_dir: with "fairseq", the directory with the code of a model that is not part of fairseq.
        precision: "float32", or "bfloat16" for hardware that supports it; centroids and sums stay float32.
        compiled: whether to compile the transformer (torch.compile), which takes a minute at the start.
    """

    ssl: str
    data_dir: str | Path
    out_dir: str | Path
    device: str = "auto"
    batch_seconds: float = BATCH_SECONDS
    job: int = 1
    jobs: int = 1
    backend: str = "distilmos"
    user_dir: str | None = None
    precision: str = "float32"
    compiled: bool = False


@dataclass
class ForwardPass:
    """The encoder on its device, and the data directory.

    Raises:
        InputError: if the data directory, the encoder or the device is faulty.
    """

    options: ForwardOptions
    device: device = field(init=False)
    encoder: SSLEncoder | FairseqModule | FrameFeatures = field(init=False)
    data: DataDir = field(init=False)

    def __post_init__(self) -> None:
        """Load the encoder and read the data directory."""
        self.device = choose_device(self.options.device)
        self.encoder = self._load().to(self.device)
        self.data = read_data_dir(self.options.data_dir, rated=False)

    def _load(self) -> SSLEncoder | FairseqModule | FrameFeatures:
        options = self.options
        if options.compiled and (options.ssl in FEATURES or options.backend == "fairseq"):
            raise InputError(f"{options.ssl}: only backend distilmos can compile an encoder; leave out --compile")
        if options.ssl in FEATURES:
            if options.precision != "float32":
                raise InputError(f"{options.ssl}: the features are computed in float32; leave out --precision")
            return FEATURES[options.ssl]()
        if options.backend == "fairseq":
            return load_fairseq_module(find_checkpoint(options.ssl), options.user_dir)
        encoder = load_ssl(options.ssl)
        if options.compiled:
            encoder.compile_layers()
        return encoder

    def frame_counts(self) -> dict[str, int]:
        """Return the number of encoder frames of each utterance, in C locale order."""
        config, durations = self.encoder.config, self.data.durations
        return {u: config.num_frames(round(durations[u] * SAMPLE_RATE)) for u in self.data.utterances}

    @property
    def layer_names(self) -> list[str]:
        """Names of the archives of the layers, layer1 and so on."""
        return [f"layer{layer}" for layer in range(1, self.encoder.config.num_layers + 1)]

    def info(self) -> TokenInfo:
        """Return the origin of what this pass writes."""
        return TokenInfo(self.options.ssl, self.encoder.fingerprint(), self.encoder.config.num_layers)

    def write(
        self,
        wanted: Collection[str],
        names: Sequence[str],
        convert: Callable[[str, list[Tensor]], list[np.ndarray]],
        *,
        compress: bool = False,
    ) -> list[str]:
        """Convert the hidden states of each utterance to arrays, and write each to an archive of its own.

        Args:
            wanted: utterances to run; this job runs its share of them.
            names: names of the archives.
            convert: maps an utterance and its hidden states of layers 1..L, each (T, D), to one array per archive.
            compress: whether to store matrices in 16 bits; see `open_archive`.

        Returns:
            the utterances that this job wrote.

        Raises:
            InputError: if a recording cannot be read, or its hidden states are not finite.
        """
        options = self.options
        share = [u for u in shard_of(self.data.utterances, options.job, options.jobs) if u in wanted]
        stems = [Path(options.out_dir) / SHARDS / f"{name}.{options.job}" for name in names]
        with ExitStack() as opened:
            archives = [opened.enter_context(open_archive(stem, compress=compress)) for stem in stems]
            durations = {utterance: self.data.durations[utterance] for utterance in share}
            for utterance, layers in hidden_states(
                self.encoder,
                self.data.wavs,
                durations,
                self.device,
                options.batch_seconds,
                PRECISIONS[options.precision],
                partial(self.data.where, "utt2dur"),
            ):
                self._require_finite(utterance, layers)
                for archive, value in zip(archives, convert(utterance, layers), strict=True):
                    archive.write(utterance, value)
        return share

    def _require_finite(self, utterance: str, layers: list[Tensor]) -> None:
        """Refuse hidden states with NaN or infinity: k-means fails on them, and tokens of them look like any others."""
        finite = stack([layer.isfinite().all() for layer in layers]).tolist()  # a GPU is waited for once, not per layer
        if not all(finite):
            raise InputError(
                f"{self.data.wavs[utterance][0]}: {utterance}: layer {finite.index(False) + 1} of {self.options.ssl} "
                f"is not finite in {self.options.precision}; check the encoder"
            )
