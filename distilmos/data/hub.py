"""Files of repositories on the Hugging Face hub, kept in the hub's own cache ($HF_HOME)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from distilmos.errors import FailedError

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def fetch_hub(repository: str, files: Sequence[str], alternatives: Sequence[Sequence[str]]) -> Path:
    """Return a directory with files of a repository.

    What is in the cache is taken from there without asking the hub, so that jobs need no access to the internet and
    that an experiment keeps its model. Other servers, proxies, tokens and the place of the cache are set with the hub
    library's own environment variables (HF_ENDPOINT, HF_TOKEN, HF_HOME).

    Args:
        repository: OWNER/NAME.
        files: patterns of what to fetch if it is there.
        alternatives: sets of patterns; the first set of which the repository has something is fetched too.

    Raises:
        FailedError: if there is nothing of `alternatives`, or it cannot be fetched; says why.
    """
    # Imported here: it takes half a second, which those who have a file should not wait.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    reason = "it has none of " + ", ".join(pattern for patterns in alternatives for pattern in patterns)
    for local in (True, False):
        for patterns in alternatives:
            try:
                found = snapshot_download(repository, allow_patterns=[*files, *patterns], local_files_only=local)
            except (HfHubHTTPError, HFValidationError, OSError) as error:
                reason = str(error).strip().splitlines()[0]
                break  # there are no others either
            names = [path.relative_to(found).as_posix() for path in Path(found).rglob("*")]
            if any(fnmatch(name, pattern) for name in names for pattern in patterns):
                return Path(found)
    raise FailedError(f"{repository}: cannot be fetched from the Hugging Face hub: {reason}")
