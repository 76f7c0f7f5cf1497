"""Progress of a prediction on a terminal."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from tqdm import tqdm

from distilmos.inference.predict import Score


def with_progress(scores: Iterable[Score], done: int, total: int) -> Iterator[Score]:
    """Pass scores on; show on stderr the number of finished files and the speed, in seconds of audio per second.

    Args:
        scores: of the files that are left.
        done: files that an earlier run finished.
        total: number of all files.
    """
    start, seconds = time.monotonic(), 0.0
    with tqdm(total=total, initial=done, unit="file", dynamic_ncols=True) as bar:
        for score in scores:
            yield score
            seconds += score.seconds
            bar.set_postfix_str(f"{seconds / (time.monotonic() - start):.1f} s of audio a second", refresh=False)
            bar.update()
