"""Files of repositories on the Hugging Face hub, stored in the hub library's cache ($HF_HOME).

Environment variables of the hub library set the server, the token and the location of the cache (HF_ENDPOINT, HF_TOKEN,
HF_HOME).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from distilmos.errors import FailedError

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def fetch_hub(
    repository: str, files: Sequence[str], alternatives: Sequence[Sequence[str]], *, newest: bool = False
) -> Path:
    """Return a directory with files of a repository.

    Cached files are used without a request to the hub, unless `newest` is set. So jobs need no internet access, and an
    experiment keeps its model.

    Args:
        repository: OWNER/NAME.
        files: patterns of optional files.
        alternatives: sets of patterns; the files of the first set that matches any file are fetched too.
        newest: ask the hub first; if that fails, print a message and use the cache.

    Raises:
        FailedError: if nothing matches `alternatives` or the download fails, with the reason.
    """
    # Imported here: the import takes half a second, which local files do not need.
    from huggingface_hub import HfApi, snapshot_download

    reason = "it has none of " + ", ".join(pattern for patterns in alternatives for pattern in patterns)
    order = (True, False)
    if newest:
        try:
            HfApi().model_info(repository)  # snapshot_download would silently use the cache
            order = (False, True)
        except Exception as error:  # as below
            print(
                f"{repository}: the hub cannot be asked ({_first_line(error)}); looking in its cache", file=sys.stderr
            )
    for local in order:
        for patterns in alternatives:
            try:
                found = snapshot_download(repository, allow_patterns=[*files, *patterns], local_files_only=local)
            except Exception as error:  # of the library, and of the HTTP library that it uses in this version
                reason = _first_line(error)
                break  # the other patterns would fail too
            names = [path.relative_to(found).as_posix() for path in Path(found).rglob("*")]
            if any(fnmatch(name, pattern) for name in names for pattern in patterns):
                return Path(found)
    raise FailedError(f"{repository}: cannot be fetched from the Hugging Face hub: {reason}")


def push_hub(directory: Path, repository: str, files: Sequence[str], *, private: bool) -> str:
    """Upload files of a directory in one commit; return the address of the repository.

    Args:
        directory: directory of the files.
        repository: OWNER/NAME; created if it does not exist.
        files: patterns of the file names.
        private: whether a new repository is private.

    Raises:
        FailedError: if the hub refuses the upload, with the reason.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        address = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repository, folder_path=directory, allow_patterns=list(files), commit_message="Model of distilmos"
        )
    except Exception as error:  # of the library, and of the HTTP library that it uses in this version
        raise FailedError(f"{repository}: the hub refuses it: {_first_line(error)}") from None
    return str(address)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
