"""Batches of recordings of similar length with a limited padded size."""

from __future__ import annotations

from collections.abc import Sequence


def pack(order: Sequence[int], lengths: Sequence[float], budget: float) -> list[tuple[int, ...]]:
    """Cut a sequence of recordings into batches whose padded size, longest length x count, is at most `budget`.

    If the last batch has only one recording, a second one moves there from the previous batch, provided that this has
    more than two and both fit: batch normalisation over a single recording says little.

    Args:
        order: indices of recordings; neighbours have similar lengths.
        lengths: length of each recording.
        budget: in the unit of the lengths. A longer recording gets its own batch.

    Returns:
        indices of each batch; each element of `order` occurs once.
    """
    batches: list[list[int]] = []
    longest = 0.0
    for member in order:
        longest = max(longest, lengths[member])
        if batches and longest * (len(batches[-1]) + 1) <= budget:
            batches[-1].append(member)
        else:
            batches.append([member])
            longest = lengths[member]
    if len(batches) > 1 and len(batches[-1]) == 1 and len(batches[-2]) > 2:
        spare, last = batches[-2][-1], batches[-1][0]
        if 2 * max(lengths[spare], lengths[last]) <= budget:
            batches[-1].append(batches[-2].pop())
    return [tuple(batch) for batch in batches]


def pack_by_length(lengths: Sequence[float], budget: float) -> list[tuple[int, ...]]:
    """Pack all recordings from long to short: least padding, and a lack of memory shows at once."""
    return pack(sorted(range(len(lengths)), key=lambda index: -lengths[index]), lengths, budget)
