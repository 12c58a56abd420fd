"""Counting statements: what a request costs the database must not grow with what it finds."""

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from sqlalchemy import event

from db.engine import Database

_recording: ContextVar[list[str] | None] = ContextVar("_recording", default=None)
"A context variable, so that only what the block asks for is recorded, whatever else is done."


@contextmanager
def recorded(database: Database) -> Generator[list[str]]:
    """Give the list of statements that are sent on behalf of the block, in their order."""

    def record(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if (recording := _recording.get()) is not None:
            recording.append(statement)

    statements: list[str] = []
    engine = database.engine.sync_engine
    event.listen(engine, "before_cursor_execute", record)
    token = _recording.set(statements)
    try:
        yield statements
    finally:
        _recording.reset(token)
        event.remove(engine, "before_cursor_execute", record)
