"""Files of repositories on the Hugging Face hub, kept in the hub's own cache ($HF_HOME).

Other servers, proxies, tokens and the place of the cache are set with the hub library's own environment variables
(HF_ENDPOINT, HF_TOKEN, HF_HOME).
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

    What is in the cache is taken from there without asking the hub, so that jobs need no access to the internet and
    that an experiment keeps its model; unless the `newest` is wanted.

    Args:
        repository: OWNER/NAME.
        files: patterns of what to fetch if it is there.
        alternatives: sets of patterns; the first set of which the repository has something is fetched too.
        newest: ask the hub first; what is in the cache is the second choice, with a message.

    Raises:
        FailedError: if there is nothing of `alternatives`, or it cannot be fetched; says why.
    """
    # Imported here: it takes half a second, which those who have a file should not wait.
    from huggingface_hub import HfApi, snapshot_download

    reason = "it has none of " + ", ".join(pattern for patterns in alternatives for pattern in patterns)
    order = (True, False)
    if newest:
        try:
            HfApi().model_info(repository)  # snapshot_download takes what is in the cache without a word
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
                break  # there are no others either
            names = [path.relative_to(found).as_posix() for path in Path(found).rglob("*")]
            if any(fnmatch(name, pattern) for name in names for pattern in patterns):
                return Path(found)
    raise FailedError(f"{repository}: cannot be fetched from the Hugging Face hub: {reason}")


def push_hub(directory: Path, repository: str, files: Sequence[str], *, private: bool) -> str:
    """Upload files of a directory as one commit; return the address of the repository.

    Args:
        directory: where they are.
        repository: OWNER/NAME, is made if it does not exist.
        files: patterns of their names.
        private: whether a repository that has to be made is not public.

    Raises:
        FailedError: if the hub refuses it; says why.
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
