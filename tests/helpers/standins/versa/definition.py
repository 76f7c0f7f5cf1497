"""Base class, metadata and registry of metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum
from typing import Any


class MetricCategory(Enum):
    """Kinds of metrics."""

    INDEPENDENT = "independent"
    DEPENDENT = "dependent"


class MetricType(Enum):
    """Kinds of results."""

    FLOAT = "float"
    DICT = "dict"


@dataclass
class MetricMetadata:
    """What the registry knows of a metric."""

    name: str
    category: MetricCategory
    metric_type: MetricType
    requires_reference: bool
    requires_text: bool
    gpu_compatible: bool
    auto_install: bool
    dependencies: list[str]
    description: str
    paper_reference: str | None = None
    implementation_source: str | None = None


class BaseMetric(ABC):
    """A metric; `config` is its entry in the YAML file."""

    def __init__(self, config: dict[str, Any] | None = None) -> None:
        """Keep the configuration and set the metric up."""
        self.config = config or {}
        self._setup()

    @abstractmethod
    def _setup(self) -> None: ...

    @abstractmethod
    def compute(self, predictions: Any, references: Any = None, metadata: dict[str, Any] | None = None) -> Any:
        """Score one utterance."""

    @abstractmethod
    def get_metadata(self) -> MetricMetadata:
        """Return the metadata."""


class MetricRegistry:
    """Metrics by name and alias."""

    def __init__(self) -> None:
        """Start empty."""
        self._metrics: dict[str, type[BaseMetric]] = {}

    def register(self, metric: type[BaseMetric], metadata: MetricMetadata, aliases: list[str] | None = None) -> None:
        """Add a metric."""
        for name in (metadata.name, *(aliases or ())):
            self._metrics[name] = metric

    def get_metric(self, name: str) -> type[BaseMetric]:
        """Return the class of a metric."""
        return self._metrics[name]
