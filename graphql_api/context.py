"""What a field can reach: the services, the viewer, and this operation's loaders."""

from functools import cached_property
from typing import Self

import strawberry
from strawberry.fastapi import BaseContext
from strawberry.types.graphql import OperationType

from db.engine import Database
from db.viewer import Viewer
from graphql_api.prepared import Prepared
from graphql_api.services import Services
from resolvers.errors import Unauthenticated
from resolvers.loaders import Loaders

EXPIRED = "What says who you are has expired. Send it anew."


class Context(BaseContext):
    """One HTTP request or one WebSocket, or one operation of them (`for_operation`).

    A stream has many events: each begins with fresh loaders (`forget`), so that none is answered
    with what an earlier one had read.
    """

    def __init__(self, services: Services, viewer: Viewer | None, request_id: str) -> None:
        super().__init__()
        self.services = services
        self.request_id = request_id
        self.operation: Prepared | None = None
        self.tells_cost = False
        self.hides_suggestions = False
        self.known_viewer = viewer

    def for_operation(self) -> Self:
        """Give one operation a context of its own: several may run side by side."""
        own = type(self)(self.services, self.known_viewer, self.request_id)
        own.request = self.request
        own.response = self.response
        own.background_tasks = self.background_tasks
        own.connection_params = self.connection_params
        own.tells_cost = self.tells_cost
        own.hides_suggestions = self.hides_suggestions
        return own

    def identify(self, viewer: Viewer | None) -> None:
        """Take the identity that a socket's first message carries."""
        self.known_viewer = viewer

    @property
    def viewer(self) -> Viewer:
        """The one who asks. Raises `Unauthenticated` where nobody said so, or it has expired."""
        if self.known_viewer is None:
            raise Unauthenticated(
                "Say who you are: send a bearer token, or a random UUID of your own as"
                " X-Session-ID."
            )
        seconds_left = self.known_viewer.seconds_left
        if seconds_left is not None and seconds_left <= 0:
            raise Unauthenticated(EXPIRED)
        return self.known_viewer

    @property
    def database(self) -> Database:
        """Where this operation reads and writes; a query may be answered by a read replica."""
        is_query = self.operation is not None and self.operation.kind is OperationType.QUERY
        return self.services.reads if is_query else self.services.database

    @cached_property
    def loaders(self) -> Loaders:
        return Loaders(self.viewer, self.database)

    def forget(self) -> None:
        """Let what comes next be read afresh."""
        self.__dict__.pop("loaders", None)


Info = strawberry.Info[Context, None]
