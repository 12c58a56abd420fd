"""The rows of replies under way: written by who runs them, read by who follows them.

Both take one statement for any number of replies. A row is written where `run_id` is ours,
its lease has not run out by the database's clock, and what is stored ends where the text
begins: a repeated write changes nothing, and a locked row delays only itself.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import (
    Boolean,
    Integer,
    Text,
    Uuid,
    bindparam,
    case,
    cast,
    column,
    func,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from db.engine import Database, Reader, many, one
from db.errors import DataRefused
from db.ids import MessageId, RunId, UserId
from db.messages import EXPIRED, STATUS
from db.models import ChatMessage, User
from db.turns import LEASE, STREAMING


class TickRow(NamedTuple):
    """What a tick found of one running reply: its stored length and whether to stop it."""

    run_id: RunId
    content_length: int
    stop_requested: bool


class Tick(NamedTuple):
    """What a tick writes to one running reply: with no text and no searches, its lease alone.

    `searches` is JSON, all of them so far, or null where no more have come.
    """

    user_id: UserId
    id: MessageId
    run_id: RunId
    offset: int
    text: str
    length: int
    searches: str | None


_BATCH = (
    func.unnest(
        bindparam("user_ids", type_=ARRAY(Uuid())),
        bindparam("ids", type_=ARRAY(Uuid())),
        bindparam("run_ids", type_=ARRAY(Uuid())),
        bindparam("offsets", type_=ARRAY(Integer())),
        bindparam("texts", type_=ARRAY(Text())),
        bindparam("lengths", type_=ARRAY(Integer())),
        bindparam("searches", type_=ARRAY(Text())),
    )
    .table_valued(
        column("user_id", Uuid()),
        column("id", Uuid()),
        column("run_id", Uuid()),
        column("offset_", Integer()),
        column("text_", Text()),
        column("length_", Integer()),
        column("searches_", Text()),
    )
    .render_derived(name="batch")
)
_MINE = (
    select(
        ChatMessage.user_id,
        ChatMessage.id,
        _BATCH.c.text_,
        _BATCH.c.length_,
        _BATCH.c.searches_,
    )
    .join(
        _BATCH,
        (ChatMessage.user_id == _BATCH.c.user_id)
        & (ChatMessage.id == _BATCH.c.id)
        & (ChatMessage.run_id == _BATCH.c.run_id)
        & (ChatMessage.content_length == _BATCH.c.offset_),
    )
    .where(STREAMING, ~EXPIRED)
    .with_for_update(skip_locked=True, key_share=True, of=ChatMessage)
    .cte("mine")
)
_TICK = (
    update(ChatMessage)
    .where(ChatMessage.user_id == _MINE.c.user_id, ChatMessage.id == _MINE.c.id)
    .values(
        content=case(
            (_MINE.c.text_ == "", ChatMessage.content),
            else_=ChatMessage.content.concat(_MINE.c.text_),
        ),
        content_length=_MINE.c.length_,
        searches=func.coalesce(cast(_MINE.c.searches_, JSONB()), ChatMessage.searches),
        lease_until=LEASE,
    )
    .returning(
        ChatMessage.run_id,
        ChatMessage.content_length,
        cast(ChatMessage.stop_requested_at.is_not(None), Boolean()),
    )
)


class RunRow(NamedTuple):
    """A run's row: whose it is now, how much text it holds, and whether its lease has run out."""

    run_id: RunId
    user_id: UserId
    id: MessageId
    content_length: int
    is_expired: bool


class PlaceRow(NamedTuple):
    """Where a message is: whose, and under which id."""

    user_id: UserId
    id: MessageId


class ProgressRow(NamedTuple):
    """How far a reply is, and what follows what its reader has; `searches` null: no more.

    `number` is its place among those asked for. `run_id` is null once it has ended.
    """

    number: int
    run_id: RunId | None
    status: str
    text: str
    searches: list[dict[str, Any]] | None


_FIND_RUNS = select(
    ChatMessage.run_id,
    ChatMessage.user_id,
    ChatMessage.id,
    ChatMessage.content_length,
    EXPIRED.label("is_expired"),
).where(ChatMessage.run_id == func.any(bindparam("runs", type_=ARRAY(Uuid()))), STREAMING)
_CLAIMED = (
    select(ChatMessage.user_id, ChatMessage.id)
    .join(User, User.claimed_by == ChatMessage.user_id)
    .where(
        User.id == bindparam("visitor"),
        ChatMessage.id == bindparam("message"),
        ChatMessage.created_at == bindparam("created_at"),
    )
)
_ASKED = (
    func.unnest(
        bindparam("numbers", type_=ARRAY(Integer())),
        bindparam("user_ids", type_=ARRAY(Uuid())),
        bindparam("ids", type_=ARRAY(Uuid())),
        bindparam("chars", type_=ARRAY(Integer())),
        bindparam("searches", type_=ARRAY(Integer())),
    )
    .table_valued(
        column("number", Integer()),
        column("user_id", Uuid()),
        column("id", Uuid()),
        column("chars", Integer()),
        column("searches", Integer()),
    )
    .render_derived(name="asked")
)
_PROGRESS = select(
    _ASKED.c.number,
    ChatMessage.run_id,
    STATUS,
    func.substr(ChatMessage.content, _ASKED.c.chars + 1),
    case((func.jsonb_array_length(ChatMessage.searches) > _ASKED.c.searches, ChatMessage.searches)),
).join(_ASKED, (ChatMessage.user_id == _ASKED.c.user_id) & (ChatMessage.id == _ASKED.c.id))


async def tick(
    database: Database, ticks: Sequence[Tick], lease: timedelta
) -> tuple[list[TickRow], list[RunId]]:
    """Write all running replies of a process in one statement, and renew their leases.

    Gives what was written, and the runs whose text the database refuses: a batch that fails
    is split until the culprit stands alone. A run that is in neither was locked, moved,
    settled, or does not end at the offset.
    """
    try:
        return await _tick(database, ticks, lease), []
    except DataRefused:
        if len(ticks) == 1:
            return [], [ticks[0].run_id]
        half = len(ticks) // 2
        written, refused = await tick(database, ticks[:half], lease)
        more_written, more_refused = await tick(database, ticks[half:], lease)
        return written + more_written, refused + more_refused


async def _tick(reader: Reader, ticks: Sequence[Tick], lease: timedelta) -> list[TickRow]:
    names = ("user_ids", "ids", "run_ids", "offsets", "texts", "lengths", "searches")
    columns = zip(*ticks, strict=True) if ticks else ((),) * len(names)
    values = {name: list(values) for name, values in zip(names, columns, strict=True)}
    return await many(reader, TickRow, _TICK, {**values, "lease": lease})


async def find_runs(reader: Reader, run_ids: list[RunId]) -> list[RunRow]:
    """Look up runs by their fence alone: wherever their rows are now, if they are."""
    return await many(reader, RunRow, _FIND_RUNS, {"runs": run_ids})


async def place_after_claim(
    reader: Reader, visitor: UserId, id: MessageId, created_at: datetime
) -> PlaceRow | None:
    """Say where a visitor's message is now that somebody has claimed them. Null: it is gone.

    It is known by when it was made, too: its new owner may have had another of its id.
    """
    values = {"visitor": visitor, "message": id, "created_at": created_at}
    return await one(reader, PlaceRow, _CLAIMED, values)


async def progress(
    reader: Reader, asked: Sequence[tuple[UserId, MessageId, int, int]]
) -> dict[int, ProgressRow]:
    """Read on in many replies by one statement, after so many characters and searches of each.

    Gives what was found by its place among those asked for.
    """
    names = ("user_ids", "ids", "chars", "searches")
    columns = zip(*asked, strict=True)
    values = {name: list(values) for name, values in zip(names, columns, strict=True)}
    found = await many(reader, ProgressRow, _PROGRESS, {"numbers": [*range(len(asked))], **values})
    return {row.number: row for row in found}
