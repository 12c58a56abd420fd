"""Anything of a viewer's, by its id alone."""

from db import audit, documents, messages, sessions, users
from db.audit import AuditRow
from db.documents import DocumentRow
from db.engine import Database
from db.ids import DocumentId, MessageId, SessionId
from db.messages import MessageRow
from db.sessions import SessionRow
from db.users import UserRow
from db.viewer import Viewer
from resolvers.inputs import parse_id

NodeRow = UserRow | SessionRow | MessageRow | DocumentRow | AuditRow


async def find_node(viewer: Viewer, database: Database, id: str) -> NodeRow | None:
    """Look in every table that the id could be of, as the viewer. Null: nothing of theirs."""
    uuid = parse_id(id, lambda uuid: uuid)
    if uuid is None:
        return None
    if uuid == viewer.user_id:
        return await users.user(viewer, database)
    return (
        await sessions.session(viewer, database, SessionId(uuid))
        or await messages.message(viewer, database, MessageId(uuid))
        or await documents.document(viewer, database, DocumentId(uuid))
        or await audit.entry(viewer, database, uuid)
    )
