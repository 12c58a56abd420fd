"""The audit log: what was changed, written in the transaction that changes it."""

from typing import Any, Literal
from uuid import UUID

from sqlalchemy import insert

from db.engine import Transaction
from db.ids import new_id
from db.models import AuditLog
from db.viewer import Viewer

Action = Literal["create", "update", "delete", "clear", "send"]
Entity = Literal["user", "session", "message", "document"]

_WRITE = insert(AuditLog)


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
    await transaction.rows(
        _WRITE,
        {
            "user_id": viewer.user_id,
            "id": new_id(),
            "action": action,
            "entity": entity,
            "entity_id": entity_id,
            "detail": detail or {},
            "request_id": request_id,
        },
    )
