"""People who use Parley: each asks over HTTP under an identity of their own."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx2

from db.engine import Database
from db.viewer import Viewer
from graphql_api.app import create_app
from graphql_api.auth import anonymous_viewer
from graphql_api.services import Services
from graphql_api.settings import Settings


@dataclass(frozen=True)
class Person:
    """Someone with a key, or a token. `ask` gives `data`, and fails where there are errors."""

    http: httpx2.AsyncClient
    key: str = field(default_factory=lambda: str(uuid4()))
    token: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        """What says who it is."""
        if self.token is not None:
            return {"Authorization": f"Bearer {self.token}"}
        return {"X-Session-ID": self.key}

    @property
    def viewer(self) -> Viewer:
        return anonymous_viewer(self.key)

    async def text(self, query: str, **variables: Any) -> str:
        """Send an operation and give the whole answer as it comes over the wire.

        A subscription comes as an event stream, all of it once it has ended.
        """
        accept = "text/event-stream" if query.startswith("subscription") else "application/json"
        answer = await self.http.post(
            "/graphql",
            # In ASCII, so that half a surrogate pair can be sent too.
            content=json.dumps({"query": query, "variables": variables}),
            headers={
                **self.headers,
                "Content-Type": "application/json",
                "Accept": accept,
            },
        )
        assert answer.status_code == 200, answer.text
        return answer.text

    async def post(self, query: str, **variables: Any) -> dict[str, Any]:
        """Send an operation and give the whole answer."""
        return json.loads(await self.text(query, **variables))

    async def ask(self, query: str, **variables: Any) -> Any:
        answer = await self.post(query, **variables)
        assert "errors" not in answer, answer["errors"]
        return answer["data"]

    async def upload(
        self, query: str, path: str, upload: tuple[str, bytes, str], /, **variables: Any
    ) -> Any:
        """Send an operation with a file (name, bytes, media type) as the variable at `path`."""
        answer = await self.http.post(
            "/graphql",
            data={
                "operations": json.dumps({"query": query, "variables": variables}),
                "map": json.dumps({"0": [f"variables.{path}"]}),
            },
            files={"0": upload},
            headers={**self.headers, "GraphQL-Require-Preflight": "1"},
        )
        assert answer.status_code == 200, answer.text
        assert "errors" not in answer.json(), answer.text
        return answer.json()["data"]

    async def code(self, query: str, **variables: Any) -> str:
        """Send an operation that is refused, and give the code of its only error."""
        [error] = (await self.post(query, **variables))["errors"]
        return error["extensions"]["code"]


@dataclass(frozen=True)
class Parley:
    """A running application, over HTTP and from within."""

    http: httpx2.AsyncClient
    services: Services
    database: Database

    def person(self) -> Person:
        return Person(self.http)

    def bearer(self, token: str) -> Person:
        return Person(self.http, token=token)

    async def documents_read(self) -> None:
        """Wait until every document that was taken up is READY or FAILED."""
        await asyncio.gather(*self.services.ingestion._tasks.values())


@asynccontextmanager
async def open_parley(settings: Settings, database: Database) -> AsyncGenerator[Parley]:
    """Start the application as a server would, without the socket."""
    app = create_app(settings, database)
    async with app.router.lifespan_context(app):
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://parley") as http:
            yield Parley(http, app.state.services, database)
