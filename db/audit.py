"""The audit log: what was changed, written in the transaction that changes it.

An entry is never updated, and stays with who made the change: a user who has claimed an
anonymous visitor reads that visitor's entries too.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Integer, Text, Uuid, bindparam, cast, func, insert, select
from sqlalchemy.dialects.postgresql import ARRAY

from db.engine import AnySelect, Database, Proof, Reader, Transaction, many, one
from db.ids import UserId, new_id
from db.models import AuditLog, User
from db.pages import Page, Slice, keyset, page
from db.viewer import Viewer


class Action(StrEnum):
    """What was done."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"
    CLEAR = "clear"
    SEND = "send"
    STOP = "stop"
    CLAIM = "claim"


class Entity(StrEnum):
    """What it was done to."""

    USER = "user"
    SESSION = "session"
    MESSAGE = "message"
    DOCUMENT = "document"


class AuditRow(NamedTuple):
    """An entry, as it is read. `user_id` is whoever made the change, at the time."""

    id: UUID
    user_id: UserId
    action: str
    entity: str
    entity_id: UUID
    detail: dict[str, Any]
    request_id: str | None
    created_at: datetime


# With the number of the transaction: with the entry, it proves that a commit took place.
_WRITE = insert(AuditLog).returning(cast(func.pg_current_xact_id(), Text()))
_VIEWER = bindparam("viewer", type_=Uuid())
_CLAIMED = select(User.id).where(User.claimed_by == _VIEWER).scalar_subquery()
# An array, and no join: so that it is a condition on the index.
_READABLE = AuditLog.user_id == func.any(
    func.array_append(func.array(_CLAIMED, type_=ARRAY(Uuid())), _VIEWER)
)
_OF_VIEWER: AnySelect = select(*(AuditLog.__table__.c[name] for name in AuditRow._fields)).where(
    _READABLE
)
_ENTRY = _OF_VIEWER.where(AuditLog.id == bindparam("id", type_=Uuid()))
_WRITTEN: AnySelect = select(AuditLog.id).where(
    AuditLog.user_id == _VIEWER, AuditLog.id == bindparam("id", type_=Uuid())
)
_COUNT = select(func.count()).select_from(AuditLog).where(_READABLE)
_CLAIMED_SESSIONS = select(
    func.coalesce(func.sum(cast(AuditLog.detail["session_count"].astext, Integer())), 0)
).where(
    AuditLog.user_id == _VIEWER,
    AuditLog.action == Action.CLAIM.value,
    AuditLog.entity_id == bindparam("visitor"),
)


async def record(
    viewer: Viewer,
    transaction: Transaction,
    action: Action,
    entity: Entity,
    entity_id: UUID,
    detail: dict[str, Any] | None = None,
    request_id: str | None = None,
) -> None:
    """Note a change. `detail` names things and counts them; it never holds message text."""
    id = new_id()
    [[number]] = await transaction.rows(
        _WRITE,
        {
            "user_id": viewer.user_id,
            "id": id,
            "action": action,
            "entity": entity,
            "entity_id": entity_id,
            "detail": detail or {},
            "request_id": request_id,
        },
    )
    transaction.proof = Proof(number, _WRITTEN, {"viewer": viewer.user_id, "id": id})


async def audit_page(viewer: Viewer, database: Database, wanted: Slice) -> Page[AuditRow]:
    """Give a page of what the viewer has changed, the last first. Key: `id`."""
    statement = keyset(_OF_VIEWER, (AuditLog.id.expression,), wanted, descending=True)
    values = {"viewer": viewer.user_id, **wanted.values}
    return page(await many(database, AuditRow, statement, values), wanted)


async def entry(viewer: Viewer, database: Database, id: UUID) -> AuditRow | None:
    """Give one of the entries that the viewer may read."""
    return await one(database, AuditRow, _ENTRY, {"viewer": viewer.user_id, "id": id})


async def audit_count(viewer: Viewer, reader: Reader) -> int:
    """Count what the viewer has changed."""
    return (await reader.rows(_COUNT, {"viewer": viewer.user_id}))[0][0]


async def claimed_sessions(viewer: Viewer, reader: Reader, visitor: UserId) -> int:
    """Count the sessions that the viewer got by claiming a visitor."""
    values = {"viewer": viewer.user_id, "visitor": visitor}
    return (await reader.rows(_CLAIMED_SESSIONS, values))[0][0]
