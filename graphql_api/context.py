"""What a field can reach: the services, the viewer, and this operation's loaders."""

from functools import cached_property

import strawberry
from strawberry.fastapi import BaseContext

from db.engine import Database
from db.viewer import Viewer
from graphql_api.services import Services
from resolvers.errors import Unauthenticated
from resolvers.loaders import Loaders


class Context(BaseContext):
    """One HTTP request, which is one operation."""

    def __init__(self, services: Services, viewer: Viewer | None, request_id: str) -> None:
        super().__init__()
        self.services = services
        self.request_id = request_id
        self._viewer = viewer

    @property
    def viewer(self) -> Viewer:
        """The one who asks. Raises `Unauthenticated` where nobody said who they are."""
        if self._viewer is None:
            raise Unauthenticated(
                "Say who you are: send a random UUID of your own as X-Session-ID."
            )
        return self._viewer

    @property
    def database(self) -> Database:
        return self.services.database

    @cached_property
    def loaders(self) -> Loaders:
        return Loaders(self.viewer, self.database)


Info = strawberry.Info[Context, None]
