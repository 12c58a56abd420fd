"""Whether two sorts of request can be told apart by how long they take.

Both are asked in turn, so that whatever else the machine does falls on both alike, and are
compared by their ranks: an outlier, of which a busy machine has many, weighs no more than any
other. No length of time is right or wrong in itself.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from math import sqrt

PAIRS = 25
ALIKE = 1.0
"""After half of the pairs. What differs enough to be told by all of them is nearer than this by
then once in a hundred times; what does not, two times in three."""
ATTEMPTS = 2
"What is found twice, the same way round, is no chance: that is so once in 500 million times."
TELLING = 4.0
"""In standard deviations, of which 25 pairs can give 6. It is reached by what takes longer in five
cases of six: by as much as the times vary among themselves, and a bit."""

Ask = Callable[[], Awaitable[object]]


class ToldApart(AssertionError):
    """The two take different times."""


def difference(ones: Sequence[float], others: Sequence[float]) -> float:
    """Give how far the ranks of two samples differ, in standard deviations (Mann and Whitney).

    Positive where the ones are longer. Between samples of one distribution it is beyond 4 either
    way once in 16,000 times, whatever the distribution.
    """
    wins = sum((one > other) + (one == other) / 2 for one in ones for other in others)
    n, m = len(ones), len(others)
    return (wins - n * m / 2) / sqrt(n * m * (n + m + 1) / 12)


async def check_alike(one: Ask, other: Ask, pairs: int = PAIRS) -> None:
    """Ask both in turn, again and again. Raises `ToldApart`."""
    told: list[float] = []
    for _ in range(ATTEMPTS):
        told.append(difference(*await _samples(one, other, pairs)))
        if abs(told[-1]) < TELLING:
            return
    if min(told) > 0 or max(told) < 0:
        raise ToldApart(f"by {told} standard deviations")


async def _samples(one: Ask, other: Ask, pairs: int) -> tuple[list[float], list[float]]:
    asks, seconds = (one, other), (list[float](), list[float]())
    for ask in asks:  # what is made once, a plan or a connection, is made before
        await ask()
    for number in range(pairs):
        # The second may find something warm: each comes second as often.
        for which in (0, 1) if number % 2 else (1, 0):
            began = time.perf_counter()
            await asks[which]()
            seconds[which].append(time.perf_counter() - began)
        if number == pairs // 2 and abs(difference(*seconds)) < ALIKE:
            break
    return seconds
