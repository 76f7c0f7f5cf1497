"""DistilMOS as a metric of VERSA (https://github.com/wavlab-speech/versa), as its docs/contributing.md asks for.

To use it, copy this file to versa/utterance_metrics/ of a checkout of VERSA, expose it in versa/metric_registry.py, and
install distilmos. In the YAML file of the metrics, `model` is a model of `distilmos predict`:

    - name: distilmos
      model: exp/distilmos_seed1/model
"""

from __future__ import annotations

from typing import Any

import numpy as np
from versa.definition import BaseMetric, MetricCategory, MetricMetadata, MetricType

try:
    import distilmos
    from distilmos.errors import InputError
except ImportError:
    distilmos = None  # type: ignore[assignment]  # VERSA must be importable without the packages of its metrics

NAME = "distilmos"
DEFAULT_RATE = 16000  # of VERSA, in Hz


class DistilmosMetric(BaseMetric):
    """The predicted mean opinion score of an utterance, without a reference."""

    def _setup(self) -> None:
        """Load the model: `model` in the configuration, or else the default of distilmos; a hub id is downloaded.

        Raises:
            ImportError: if distilmos is not installed.
        """
        if distilmos is None:
            raise ImportError("distilmos is not installed: pip install it from its repository")
        device = "cuda" if self.config.get("use_gpu", False) else "cpu"
        self.predictor = distilmos.load(self.config.get("model"), device)

    def compute(
        self, predictions: Any, references: Any = None, metadata: dict[str, Any] | None = None
    ) -> dict[str, float | str]:
        """Score an utterance.

        Args:
            predictions: mono waveform (N,), floating point with full scale -1..1, or integers of 8, 16 or 32 bits.
            references: not used.
            metadata: `sample_rate` in Hz; 16000 without it.

        Returns:
            `distilmos`, on the scale of the model (1 to 5, higher is better, not clipped), `distilmos_TARGET` for each
            further target of the model, and `distilmos_model`, name and version of the model.

        Raises:
            ValueError: if there is no waveform, or it cannot be scored, for example because it is too short.
        """
        if predictions is None:
            raise ValueError(f"{NAME} needs a predicted waveform")
        rate = (metadata or {}).get("sample_rate", DEFAULT_RATE)
        try:
            score = self.predictor.predict(np.asarray(predictions), rate)
        except InputError as error:
            raise ValueError(f"{NAME}: {error}") from error
        if isinstance(score, list):
            raise ValueError(f"{NAME}: shape {np.shape(predictions)}; expected (N,)")
        further = list(score.scores.items())[1:]
        return {
            NAME: score.mos,
            **{f"{NAME}_{target}": value for target, value in further},
            f"{NAME}_model": score.model,
        }

    def get_metadata(self) -> MetricMetadata:
        """Return what VERSA lists about the metric."""
        return _metadata()


def _metadata() -> MetricMetadata:
    """Return the entry of the registry."""
    return MetricMetadata(
        name=NAME,
        category=MetricCategory.INDEPENDENT,
        metric_type=MetricType.DICT,
        requires_reference=False,
        requires_text=False,
        gpu_compatible=True,
        auto_install=False,
        dependencies=["distilmos"],
        description="Mean opinion score predicted by DistilMOS or another model of its recipes",
        paper_reference="https://arxiv.org/abs/2601.13700",
    )


def register_distilmos_metric(registry: Any) -> None:
    """Register the metric and its alias."""
    registry.register(DistilmosMetric, _metadata(), aliases=["distil_mos"])
