"""What a field can reach: the services, the viewer, and this operation's loaders."""

from functools import cached_property

import strawberry
from strawberry.fastapi import BaseContext

from db.engine import Database
from db.viewer import Viewer
from graphql_api.services import Services
from resolvers.errors import Unauthenticated
from resolvers.loaders import Loaders

EXPIRED = "What says who you are has expired. Send it anew."


class Context(BaseContext):
    """One HTTP request or one WebSocket.

    A socket carries many operations, and a stream many events: each event begins with fresh
    loaders (`forget`), so that none is answered with what an earlier one had read.
    """

    def __init__(self, services: Services, viewer: Viewer | None, request_id: str) -> None:
        super().__init__()
        self.services = services
        self.request_id = request_id
        self._viewer = viewer

    def identify(self, viewer: Viewer | None) -> None:
        """Take the identity that a socket's first message carries."""
        self._viewer = viewer

    @property
    def viewer(self) -> Viewer:
        """The one who asks. Raises `Unauthenticated` where nobody said so, or it has expired."""
        if self._viewer is None:
            raise Unauthenticated(
                "Say who you are: send a bearer token, or a random UUID of your own as"
                " X-Session-ID."
            )
        seconds_left = self._viewer.seconds_left
        if seconds_left is not None and seconds_left <= 0:
            raise Unauthenticated(EXPIRED)
        return self._viewer

    @property
    def database(self) -> Database:
        return self.services.database

    @cached_property
    def loaders(self) -> Loaders:
        return Loaders(self.viewer, self.database)

    def forget(self) -> None:
        """Let what comes next be read afresh."""
        self.__dict__.pop("loaders", None)


Info = strawberry.Info[Context, None]
