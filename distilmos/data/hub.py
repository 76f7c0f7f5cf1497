"""Files of repositories on the Hugging Face hub, stored in the hub library's cache ($HF_HOME).

Environment variables of the hub library set the server, the token and the location of the cache (HF_ENDPOINT, HF_TOKEN,
HF_HOME).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from distilmos.errors import FailedError

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class Files:
    """The files that a program needs from a repository.

    Attributes:
        settings: groups of file names. One file of each group is enough, and a repository may have none.
        weights: sets of patterns in order of preference; the files of the first set that matches any file are used.
        extra: names of files that are fetched along, and may be missing.
    """

    settings: Sequence[Sequence[str]]
    weights: Sequence[Sequence[str]]
    extra: Sequence[str] = ()

    def first_weights(self, names: Iterable[str]) -> list[str] | None:
        """Return the first set of patterns in `weights` that matches any of `names`; None if none does."""
        names = list(names)
        for patterns in self.weights:
            if any(fnmatch(name, pattern) for name in names for pattern in patterns):
                return list(patterns)
        return None


def fetch_hub(repository: str, files: Files, *, newest: bool = False) -> Path:
    """Return a directory with files of a repository.

    A complete cached snapshot is used without a request to the hub, unless `newest` is set. So jobs need no internet
    access, and an experiment keeps its model. Other programs may have cached a part of the files; the rest is fetched
    from the same commit. A file of settings counts as absent only if the cache records that the commit lacks it.

    Args:
        repository: OWNER/NAME.
        files: the files.
        newest: ask the hub first; if that fails, print a message and use the cache.

    Raises:
        FailedError: if a file is neither cached nor can be downloaded, with the reason.
    """
    if newest:
        try:
            return _download(repository, None, files)
        except FailedError:
            raise
        except Exception as error:  # of the library, and of the HTTP library that it uses in this version
            reason = _first_line(error)
            print(f"{repository}: the hub cannot be asked ({reason}); looking in its cache", file=sys.stderr)
    snapshot, missing = _look_up(repository, files)
    if snapshot and not missing:
        return snapshot
    try:
        return _download(repository, snapshot.name if snapshot else None, files)
    except FailedError:
        raise
    except Exception as error:  # as above
        what = f"{missing} is not cached and " if snapshot else ""
        reason = _first_line(error)
        raise FailedError(f"{repository}: {what}cannot be fetched from the Hugging Face hub: {reason}") from None


def _look_up(repository: str, files: Files) -> tuple[Path | None, str]:
    """Return the cached snapshot of a repository, and the names of missing files; None if nothing is cached."""
    # Imported here: the import takes half a second, which local files do not need.
    from huggingface_hub import snapshot_download, try_to_load_from_cache

    try:
        snapshot = Path(snapshot_download(repository, allow_patterns=[], local_files_only=True))
    except Exception:  # as above
        return None, ""
    for group in files.settings:
        if not any((snapshot / name).exists() for name in group):
            # Either a path or a record that the commit has no such file.
            known = [try_to_load_from_cache(repository, name, revision=snapshot.name) for name in group]
            if None in known:
                return snapshot, " or ".join(group)
    weights = files.first_weights(path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*"))
    if weights:
        try:  # newer versions of the library know the files of a commit, so they notice a missing shard
            snapshot_download(repository, revision=snapshot.name, allow_patterns=weights, local_files_only=True)
            return snapshot, ""
        except Exception as error:  # as above
            return snapshot, _first_line(error)
    return snapshot, " or ".join(pattern for patterns in files.weights for pattern in patterns)


def _download(repository: str, revision: str | None, files: Files) -> Path:
    """Download the files at a commit (None: the newest) and return their snapshot.

    Raises:
        FailedError: if the repository has no weights.
        Exception: of many types, if the hub cannot be asked.
    """
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download

    names = HfApi().list_repo_files(repository, revision=revision)
    weights = files.first_weights(names)
    if weights is None:
        patterns = ", ".join(pattern for patterns in files.weights for pattern in patterns)
        raise FailedError(f"{repository}: the repository on the Hugging Face hub has none of {patterns}")
    settings = [name for group in files.settings for name in group]
    wanted = [*files.extra, *settings, *weights]
    snapshot = Path(snapshot_download(repository, revision=revision, allow_patterns=wanted))
    for name in set(settings) - set(names):
        with suppress(Exception):  # records that the commit has no such file, for later calls without internet access
            hf_hub_download(repository, name, revision=snapshot.name)
    return snapshot


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
