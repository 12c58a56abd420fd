"""Claims: what an anonymous visitor made becomes a signed-in user's.

The rows are copied under their new owner and the old ones deleted, in one transaction: no key
is ever updated. A reply that is being written goes on, since its server finds it by `run_id`.

Everything that could change meanwhile is locked first: the visitor's own row, which keeps new
sessions and documents out; then the sessions, then the replies, in the order that all follow.
"""

from collections.abc import Mapping
from itertools import count
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Text,
    Uuid,
    and_,
    bindparam,
    cast,
    column,
    delete,
    func,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, insert
from sqlalchemy.exc import IntegrityError

from db.engine import AnySelect, Reader, Transaction, one
from db.ids import DocumentId, UserId, new_id
from db.models import ChatMessage, ChatSession, Document, IngestionStatus, MessageStatus, User
from db.sessions import MAX_KEY_LENGTH
from db.viewer import Viewer


class ClaimCollided(Exception):
    """The user made something of the same id at the same time: roll back and try again."""


class VisitorRow(NamedTuple):
    """An anonymous visitor, and who has claimed them."""

    id: UserId
    claimed_by: UserId | None


class Moved(NamedTuple):
    """What a claim moved. `forgotten` documents are gone, each for another of its bytes."""

    sessions: int
    messages: int
    documents: list[DocumentId]
    forgotten: dict[DocumentId, DocumentId]

    @property
    def is_nothing(self) -> bool:
        return not (self.sessions or self.documents or self.forgotten)


_VISITOR = bindparam("visitor", type_=Uuid())
_VIEWER = bindparam("viewer", type_=Uuid())
_VISITORS_SESSIONS = ChatSession.user_id == _VISITOR

_LOCK_VISITOR = (
    select(User.id, User.claimed_by).where(User.id == _VISITOR, User.is_anonymous).with_for_update()
)
_LOCK_SESSIONS = (
    select(ChatSession.id).where(_VISITORS_SESSIONS).order_by(ChatSession.id).with_for_update()
)
_LOCK_REPLIES = (
    select(ChatMessage.id)
    .where(
        ChatMessage.user_id == _VISITOR,
        ChatMessage.status == literal(MessageStatus.STREAMING.value),
    )
    .with_for_update()
)
_DELETE_SESSIONS = delete(ChatSession).where(_VISITORS_SESSIONS)
_MOVE_DOCUMENTS = (
    update(Document)
    .where(Document.owner_id == _VISITOR)
    .values(owner_id=_VIEWER, updated_at=func.now())
    .returning(Document.id)
)
_CLAIM = (
    update(User)
    .where(User.id == _VISITOR)
    .values(claimed_by=_VIEWER, claimed_at=func.now(), updated_at=func.now())
)


def _of_both(table: FromClause, name: str) -> AnySelect:
    """Make the statement that finds the visitor's rows which share a value with the user's."""
    own = table.alias("own")
    shared = and_(own.c.user_id == _VIEWER, own.c[name] == table.c[name])
    return select(table.c.id, table.c[name]).where(
        table.c.user_id == _VISITOR, select(own.c.id).where(shared).exists()
    )


_SESSIONS_OF_BOTH = _of_both(ChatSession.__table__, "id")
_MESSAGES_OF_BOTH = _of_both(ChatMessage.__table__, "id")
_KEYS_OF_BOTH = _of_both(ChatSession.__table__, "session_id")
_KEYS = select(ChatSession.session_id).where(
    ChatSession.user_id.in_((_VIEWER, _VISITOR)), ChatSession.session_id.is_not(None)
)


def _replaced(name: str, kind: Any) -> FromClause:
    """Give what is bound as `<name>_old` and `<name>_new` as a relation `name(old, new)`."""
    pairs = func.unnest(
        bindparam(f"{name}_old", type_=ARRAY(Uuid())), bindparam(f"{name}_new", type_=ARRAY(kind))
    )
    return pairs.table_valued(column("old", Uuid()), column("new", kind)).render_derived(name=name)


def _values_replaced(name: str, new_by_old: Mapping[UUID, object]) -> dict[str, Any]:
    return {f"{name}_old": list(new_by_old), f"{name}_new": list(new_by_old.values())}


def _copy(
    model: type[ChatSession] | type[ChatMessage],
    replaced: Mapping[str, tuple[str, FromClause]],
) -> Any:
    """Make the statement that copies the visitor's rows to the user.

    `replaced` says, by column, what relation has its new values, and which column is `old` there.
    """
    table = source = model.__table__
    for old, pairs in replaced.values():
        source = source.outerjoin(pairs, pairs.c.old == table.c[old])
    values: dict[str, ColumnElement[Any]] = {each.name: each for each in table.c}
    values |= {name: func.coalesce(new.c.new, table.c[name]) for name, (_, new) in replaced.items()}
    values["user_id"] = _VIEWER
    rows = select(*values.values()).select_from(source).where(table.c.user_id == _VISITOR)
    return insert(model).from_select(list(values), rows).returning(table.c.id)


_COPY_SESSIONS = _copy(
    ChatSession,
    {
        "id": ("id", _replaced("sessions", Uuid())),
        "session_id": ("id", _replaced("keys", Text())),
    },
)
_COPY_MESSAGES = _copy(
    ChatMessage,
    {
        "id": ("id", _replaced("messages", Uuid())),
        "session_id": ("session_id", _replaced("sessions", Uuid())),
        "reply_to": ("reply_to", _replaced("messages", Uuid()).alias("questions")),
    },
)


def _forget_twins(
    of: ColumnElement[Any], other: ColumnElement[Any], *, unreadable: bool = False
) -> Any:
    """Make the statement that deletes those documents of one whose bytes the other has as well.

    Or only those that can't be read, where the other's can.
    """
    twin = Document.__table__.alias("twin")
    same = [twin.c.owner_id == other, twin.c.checksum == Document.checksum]
    if unreadable:
        failed = IngestionStatus.FAILED.value
        same += [Document.ingestion_status == failed, twin.c.ingestion_status != failed]
    return delete(Document).where(Document.owner_id == of, *same).returning(Document.id, twin.c.id)


def _pointed_elsewhere(name: str) -> ColumnElement[Any]:
    """Put one document's id for another's wherever it stands in a column of JSON.

    As text: an id that was drawn at random stands for nothing else.
    """
    column = ChatMessage.__table__.c[name]
    return cast(func.replace(cast(column, Text()), _FORGOTTEN, _KEPT), JSONB())


# Of two alike the user's own stays, unless only the visitor's can be read.
_FORGET_UNREADABLE = _forget_twins(_VIEWER, _VISITOR, unreadable=True)
_FORGET_TWINS = _forget_twins(_VISITOR, _VIEWER)


_FORGOTTEN = bindparam("forgotten", type_=Text())
_KEPT = bindparam("kept", type_=Text())
_POINTING = ("citations", "searches", "document_ids")
_POINT_ELSEWHERE = (
    update(ChatMessage)
    .where(
        ChatMessage.user_id == _VIEWER,
        or_(
            *(
                func.strpos(cast(ChatMessage.__table__.c[name], Text()), _FORGOTTEN) > 0
                for name in _POINTING
            )
        ),
    )
    .values({name: _pointed_elsewhere(name) for name in _POINTING})
)


async def lock_visitor(visitor: Viewer, transaction: Transaction) -> VisitorRow | None:
    """Find an anonymous visitor and keep what is theirs as it is. Null: they made nothing yet."""
    return await one(transaction, VisitorRow, _LOCK_VISITOR, {"visitor": visitor.user_id})


async def move_everything(viewer: Viewer, visitor: Viewer, transaction: Transaction) -> Moved:
    """Make a locked visitor's sessions, messages and documents the viewer's.

    What has an id that the viewer's own has gets another; a key that is the viewer's already
    gets a suffix. Raises `ClaimCollided`.
    """
    both = {"visitor": visitor.user_id, "viewer": viewer.user_id}
    await transaction.rows(_LOCK_SESSIONS, both)
    await transaction.rows(_LOCK_REPLIES, both)
    sessions = _values_replaced("sessions", await _new_ids(transaction, _SESSIONS_OF_BOTH, both))
    messages = _values_replaced("messages", await _new_ids(transaction, _MESSAGES_OF_BOTH, both))
    keys = _values_replaced("keys", await _new_keys(transaction, both))
    try:
        moved_sessions = await transaction.rows(_COPY_SESSIONS, both | sessions | keys)
        moved_messages = await transaction.rows(_COPY_MESSAGES, both | sessions | messages)
        await transaction.rows(_DELETE_SESSIONS, both)
        forgotten: dict[DocumentId, DocumentId] = {
            id: kept
            for statement in (_FORGET_UNREADABLE, _FORGET_TWINS)
            for id, kept in await transaction.rows(statement, both)
        }
        for id, kept in forgotten.items():
            values = {"forgotten": str(id), "kept": str(kept)}
            await transaction.rows(_POINT_ELSEWHERE, both | values)
        documents = await transaction.rows(_MOVE_DOCUMENTS, both)
        await transaction.rows(_CLAIM, both)
    except IntegrityError as error:
        raise ClaimCollided from error
    return Moved(
        sessions=len(moved_sessions),
        messages=len(moved_messages),
        documents=[row[0] for row in documents],
        forgotten=forgotten,
    )


async def _new_ids(reader: Reader, of_both: AnySelect, both: Mapping[str, Any]) -> dict[UUID, UUID]:
    return {row[0]: new_id() for row in await reader.rows(of_both, both)}


def _suffixed(key: str, number: int) -> str:
    """Give `key-2` and so on, no longer than a key may be."""
    suffix = f"-{number}"
    return key[: MAX_KEY_LENGTH - len(suffix)] + suffix


async def _new_keys(reader: Reader, both: Mapping[str, Any]) -> dict[UUID, str]:
    """Find for each key of both the first of `key-2`, `key-3` … that neither has."""
    colliding = await reader.rows(_KEYS_OF_BOTH, both)
    if not colliding:
        return {}
    taken = {row[0] for row in await reader.rows(_KEYS, both)}
    renamed: dict[UUID, str] = {}
    for id, key in colliding:
        free = next(name for n in count(2) if (name := _suffixed(key, n)) not in taken)
        taken.add(free)
        renamed[id] = free
    return renamed
