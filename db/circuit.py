"""A circuit before the database: while it is away, nobody waits to hear so again.

It opens when connecting has failed for as long as we try, and lets one caller through from
time to time. Whether the database is back is found out by those who need it: nothing polls.
"""

import time

from db.errors import DatabaseUnavailable

PROBE_SECONDS = 0.5
"How often someone may look whether the database is back."


class Circuit:
    """Open while the database is known to be away, for `reason`. `openings` counts how often."""

    def __init__(self) -> None:
        self._probe_at: float | None = None
        self.reason = ""
        self.openings = 0

    @property
    def is_open(self) -> bool:
        return self._probe_at is not None

    def enter(self) -> None:
        """Let a caller through. Raises `DatabaseUnavailable` at once while it is open."""
        if self._probe_at is None:
            return
        now = time.monotonic()
        if now < self._probe_at:
            raise DatabaseUnavailable(self.reason)
        self._probe_at = now + PROBE_SECONDS

    def closes(self) -> None:
        """Take note that the database answers."""
        self._probe_at = None

    def opens(self, reason: str) -> None:
        """Take note that it doesn't."""
        if not self.is_open:
            self.openings += 1
        self.reason = reason
        self._probe_at = time.monotonic() + PROBE_SECONDS
