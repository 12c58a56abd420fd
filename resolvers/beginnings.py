"""Turns whose commit nobody has heard of: begun after all, or not.

The database went away in the commit, and stayed away for longer than its outcome is asked for.
Should the turn be stored, nobody else would write its reply.
"""

import asyncio
import time
from datetime import timedelta
from typing import NamedTuple

from db import messages, runs
from db.engine import Database
from db.errors import DatabaseUnavailable
from db.ids import RunId
from db.messages import MessageRow

ASK_SECONDS = 0.5
"How often a database that went away is asked."
MISSES = 4
"So often it has to say that there is none: a commit may still be under way when it is back."


class Begun(NamedTuple):
    """Both messages of a turn, its reply as it was opened."""

    question: MessageRow
    reply: MessageRow


async def begun_after_all(database: Database, run_id: RunId, lease: timedelta) -> Begun | None:
    """Look for a turn by its run, for as long as the run may still be taken up. Null: not begun."""
    deadline, misses = time.monotonic() + lease.total_seconds(), 0
    while misses < MISSES and time.monotonic() < deadline:
        await asyncio.sleep(ASK_SECONDS)
        try:
            found = await _found(database, run_id)
        except DatabaseUnavailable:
            continue
        if found is not None:
            return found
        misses += 1
    return None


async def _found(database: Database, run_id: RunId) -> Begun | None:
    for row in await runs.find_runs(database, [run_id]):
        reply = await messages.message_of(database, row.user_id, row.id)
        if reply is not None and reply.reply_to is not None and not row.is_expired:
            question = await messages.message_of(database, row.user_id, reply.reply_to)
            if question is not None:
                return Begun(question, reply)
    return None
