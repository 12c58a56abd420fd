"""The GraphQL endpoint: Strawberry's router, with our schema, context and GraphiQL."""

from collections.abc import Awaitable, Callable

from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse
from strawberry.fastapi import GraphQLRouter
from strawberry.subscriptions import GRAPHQL_TRANSPORT_WS_PROTOCOL

from graphql_api.context import Context
from graphql_api.graphiql import graphiql_page
from graphql_api.schema import schema


class ParleyRouter(GraphQLRouter[Context, None]):
    """`/graphql`, over HTTP. Uploads follow the GraphQL multipart request specification."""

    def __init__(
        self, context: Callable[[HTTPConnection], Awaitable[Context]], *, graphiql: bool
    ) -> None:
        super().__init__(
            schema,
            context_getter=context,
            graphql_ide="graphiql" if graphiql else None,
            multipart_uploads_enabled=True,
            subscription_protocols=(GRAPHQL_TRANSPORT_WS_PROTOCOL,),
        )

    async def render_graphql_ide(self, request: Request) -> HTMLResponse:
        return HTMLResponse(graphiql_page())
