"""Stalls of the event loop: what keeps it from serving anybody is named in the log.

All requests share one loop, so whatever computes for long, or blocks, makes the others wait.
The loop itself tells how late it was; a thread beside it, which goes on meanwhile, sees where.
"""

import asyncio
import sys
import threading
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from traceback import StackSummary, walk_stack

import structlog

BEAT_SECONDS = 0.25
"How often the loop is looked at. It asks nobody anything, and takes some microseconds."
STALL_SECONDS = 0.5
"Later than this is worth a line: people notice, and nothing of ours takes so long as a rule."
SHOWN_FRAMES = 6
"Innermost ones: what stalls, and who called it."

log = structlog.get_logger(__name__)


@asynccontextmanager
async def stalls_logged(longer_than_seconds: float = STALL_SECONDS) -> AsyncGenerator[None]:
    """Log `loop.stalled` whenever the loop stands still for so long while the block runs.

    `at` is what it was doing, innermost first, by file, line and function; null where what
    stalled held all threads (a library in C, the whole machine).
    """
    watch = _Watch(longer_than_seconds)
    beating = asyncio.create_task(watch.beat(), name="stalls")
    looking = threading.Thread(target=watch.look, name="stalls", daemon=True)
    looking.start()
    try:
        yield
    finally:
        watch.is_over.set()
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)


class _Watch:
    def __init__(self, longer_than_seconds: float) -> None:
        self.is_over = threading.Event()
        self._longer_than_seconds = longer_than_seconds
        self._thread_id = threading.get_ident()
        self._due_at = time.monotonic() + BEAT_SECONDS
        self._seen_at: str | None = None

    async def beat(self) -> None:
        """Tell, on the loop, how late each turn of it was."""
        while True:
            self._due_at = time.monotonic() + BEAT_SECONDS
            await asyncio.sleep(BEAT_SECONDS)
            late = time.monotonic() - self._due_at
            if late > self._longer_than_seconds:
                log.warning("loop.stalled", milliseconds=round(late * 1000), at=self._seen_at)
            self._seen_at = None

    def look(self) -> None:
        """See, on a thread of its own, what a loop that is late is doing."""
        while not self.is_over.wait(BEAT_SECONDS):
            if time.monotonic() - self._due_at > self._longer_than_seconds / 2:
                self._seen_at = self._seen_at or self._what_it_does()

    def _what_it_does(self) -> str | None:
        frame = sys._current_frames().get(self._thread_id)
        if frame is None:
            return None
        stack = walk_stack(frame)
        summary = StackSummary.extract(stack, limit=SHOWN_FRAMES, lookup_lines=False)
        return " < ".join(f"{_shown(each.filename)}:{each.lineno} {each.name}" for each in summary)


def _shown(filename: str) -> str:
    """Give the end of a path: the package and the module."""
    return "/".join(Path(filename).parts[-2:])
