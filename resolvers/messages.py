"""Messages: a session's history, and deleting one of it."""

from db import audit, messages, sessions
from db.audit import Action, Entity
from db.engine import Database, Transaction
from db.ids import MessageId, SessionId
from db.messages import MessageRow
from db.pages import Page
from db.viewer import Viewer
from resolvers.cursors import MESSAGES, PageArguments, slice_of
from resolvers.errors import NotFound
from resolvers.inputs import check_filter, parse_id
from resolvers.replies import Replies


async def history_page(
    viewer: Viewer, database: Database, id: SessionId, asked: PageArguments, chapter: str | None
) -> Page[MessageRow]:
    """Give a page of a session's messages in reading order. Raises `BadRequest`.

    A session that is not the viewer's has an empty one.
    """
    check_filter(chapter, "chapter")
    wanted = slice_of(asked, MESSAGES)
    return (await messages.message_pages(viewer, database, [id], wanted, chapter))[id]


async def delete_message(
    viewer: Viewer, database: Database, replies: Replies, *, id: str, request_id: str
) -> MessageId:
    """Delete a message, stopping it first if it is being written. Raises `NotFound`."""
    message_id = parse_id(id, MessageId)
    row = message_id and await messages.message(viewer, database, message_id)
    if not row:
        raise NotFound
    await replies.stop_row(viewer, row)

    async def delete(transaction: Transaction) -> None:
        await sessions.lock_session(viewer, transaction, row.session_id)
        if not await messages.delete_message(viewer, transaction, row.id):
            raise NotFound
        await sessions.shrink_session(viewer, transaction, row.session_id, removed=1)
        await audit.record(
            viewer, transaction, Action.DELETE, Entity.MESSAGE, row.id, request_id=request_id
        )

    await database.transact(delete)
    return row.id
