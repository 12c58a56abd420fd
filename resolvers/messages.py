"""Messages: a session's history, and deleting one of it."""

from db import audit, messages, sessions
from db.engine import Database
from db.ids import MessageId
from db.viewer import Viewer
from resolvers.errors import NotFound
from resolvers.inputs import parse_id
from resolvers.replies import Replies


async def delete_message(
    viewer: Viewer, database: Database, replies: Replies, *, id: str, request_id: str
) -> MessageId:
    """Delete a message, stopping it first if it is being written. Raises `NotFound`."""
    message_id = parse_id(id, MessageId)
    row = message_id and await messages.message(viewer, database, message_id)
    if not row:
        raise NotFound
    await replies.stop_row(viewer, row)
    async with database.transaction() as transaction:
        await sessions.lock_session(viewer, transaction, row.session_id)
        if not await messages.delete_message(viewer, transaction, row.id):
            raise NotFound
        await sessions.shrink_session(viewer, transaction, row.session_id, removed=1)
        await audit.record(viewer, transaction, "delete", "message", row.id, request_id=request_id)
    return row.id
