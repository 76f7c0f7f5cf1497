"""Audio that can be read only once, or has no path: it is copied to a temporary file."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any


class Copy:
    """A temporary file with the content of a pipe or an open file, which exists as long as this object."""

    def __init__(self, source: Callable[[], AbstractContextManager[Any]]) -> None:
        """Prepare the copy; `source` opens what is copied, a binary file."""
        self._source = source

    @cached_property
    def path(self) -> Path:
        """Path of the temporary file. The first call reads the source to its end."""
        descriptor, name = tempfile.mkstemp(prefix="distilmos_")
        path = Path(name)
        weakref.finalize(self, path.unlink, missing_ok=True)
        with os.fdopen(descriptor, "wb") as copy, self._source() as source:
            shutil.copyfileobj(source, copy)
        return path
