"""A server on a loopback socket, in the test's own loop, with the product's own model."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import httpx2
import uvicorn

from db.engine import Database
from graphql_api.app import create_app
from graphql_api.settings import Settings
from tests.operations import PATIENCE_SECONDS, until
from tests.people import Parley
from tests.streaming.wire import _Server


@asynccontextmanager
async def listening(settings: Settings, database: Database) -> AsyncGenerator[Parley]:
    """Serve over a database; `http` goes over real sockets."""
    app = create_app(settings, database)
    # As `graphql_api.serve` has it.
    config = uvicorn.Config(
        app, port=0, log_config=None, ws_per_message_deflate=False, timeout_graceful_shutdown=2
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve())
    await until(lambda: server.started or serving.done())
    try:
        port = server.servers[0].sockets[0].getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        async with httpx2.AsyncClient(base_url=url, timeout=PATIENCE_SECONDS) as http:
            yield Parley(http, app.state.services, database)
    finally:
        server.should_exit = True
        await serving


def port_of(parley: Parley) -> int:
    port = parley.http.base_url.port
    assert port is not None
    return port
