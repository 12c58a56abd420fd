"""The Query type: each field a short read of its own, as the viewer."""

from typing import Annotated

import strawberry

from db import documents, messages, sessions
from db.documents import DocumentFilter
from db.ids import DocumentId, MessageId, SessionId
from graphql_api.context import Info
from graphql_api.types.chat import Chapter, ChatMessage, ChatSession, history
from graphql_api.types.documents import Citation, Document, IngestionStatus
from graphql_api.types.node import Node
from graphql_api.types.pages import After, Before, Connection, First, Last, connection
from graphql_api.types.users import User
from resolvers.cursors import PageArguments, document_cursor, session_cursor
from resolvers.documents import DEFAULT_SEARCH_RESULTS, documents_page
from resolvers.inputs import check_filter, parse_id
from resolvers.nodes import find_node
from resolvers.sessions import sessions_page
from resolvers.users import viewer_profile

Id = Annotated[strawberry.ID, strawberry.argument(description="Its id.")]


@strawberry.type(description="What can be read. All of it is the viewer's own, or shared.")
class Query:
    @strawberry.field(description="The one who asks.")
    async def viewer(self, info: Info) -> User:
        return User.of(await viewer_profile(info.context.viewer, info.context.database))

    @strawberry.field(description="Anything of the viewer's, by its id alone.")
    async def node(self, info: Info, id: Id) -> Node | None:
        return await find_node(info.context.viewer, info.context.database, id)  # pyright: ignore[reportReturnType] - a row stands in for its type

    @strawberry.field(description="One conversation.")
    async def session(self, info: Info, id: Id) -> ChatSession | None:
        session_id = parse_id(id, SessionId)
        row = session_id and await sessions.session(
            info.context.viewer, info.context.database, session_id
        )
        return ChatSession.of(row) if row else None

    @strawberry.field(description="The viewer's conversations, the one last used first.")
    async def sessions(
        self,
        info: Info,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
    ) -> Connection[ChatSession]:
        viewer, database = info.context.viewer, info.context.database
        page = await sessions_page(viewer, database, PageArguments(first, after, last, before))
        return connection(page, session_cursor, lambda: sessions.session_count(viewer, database))

    @strawberry.field(
        description="A conversation's history in reading order: `first`/`after` walk forward,"
        " `last`/`before` walk back. Null: no such conversation of the viewer's."
    )
    async def messages(
        self,
        info: Info,
        session_id: Annotated[strawberry.ID, strawberry.argument(description="Whose history.")],
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
        chapter: Chapter = None,
    ) -> Connection[ChatMessage] | None:
        id = parse_id(session_id, SessionId)
        row = id and await sessions.session(info.context.viewer, info.context.database, id)
        if not row:
            return None
        asked = PageArguments(first, after, last, before)
        return await history(info.context.loaders, row, asked, chapter)

    @strawberry.field(description="One message.")
    async def message(self, info: Info, id: Id) -> ChatMessage | None:
        message_id = parse_id(id, MessageId)
        row = message_id and await messages.message(
            info.context.viewer, info.context.database, message_id
        )
        return ChatMessage.of(row) if row else None

    @strawberry.field(description="One document that the viewer may read.")
    async def document(self, info: Info, id: Id) -> Document | None:
        document_id = parse_id(id, DocumentId)
        row = document_id and await documents.document(
            info.context.viewer, info.context.database, document_id
        )
        return Document.of(row) if row else None

    @strawberry.field(description="The viewer's own documents and the shared ones, newest first.")
    async def documents(
        self,
        info: Info,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
        status: Annotated[
            IngestionStatus | None, strawberry.argument(description="Only those this far.")
        ] = None,
        checksum: Annotated[
            str | None, strawberry.argument(description="Only those of this SHA-256, in hex.")
        ] = None,
        source_url: Annotated[
            str | None, strawberry.argument(description="Only those fetched from there.")
        ] = None,
    ) -> Connection[Document]:
        viewer, database = info.context.viewer, info.context.database
        check_filter(checksum, "checksum")
        check_filter(source_url, "sourceUrl")
        only = DocumentFilter(status.name if status else None, checksum, source_url)
        asked = PageArguments(first, after, last, before)
        page = await documents_page(viewer, database, only, asked)
        return connection(
            page,
            document_cursor,
            lambda: documents.document_count(viewer, database, only),
        )

    @strawberry.field(
        description="What the agent's retrieval sees: the best passages for a query among the"
        " documents that the viewer may read."
    )
    async def search_documents(
        self,
        info: Info,
        query: Annotated[str, strawberry.argument(description="What to look for.")],
        limit: Annotated[
            int | None, strawberry.argument(description="How many passages, from 1 to 50.")
        ] = DEFAULT_SEARCH_RESULTS,
    ) -> list[Citation]:
        found = await info.context.services.library.search(
            info.context.viewer, query, DEFAULT_SEARCH_RESULTS if limit is None else limit
        )
        return [Citation.of(each) for each in found]
