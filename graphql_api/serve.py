"""`parley serve`: one process that answers until it is told to stop."""

import asyncio
import signal
import socket
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from datetime import timedelta

import click
import uvicorn

from graphql_api.app import create_app
from graphql_api.data_folder import KNOCK, DataFolder
from graphql_api.instance import ingest_own_docs, open_database, prepare_schema
from graphql_api.services import Services
from graphql_api.settings import Settings
from graphql_api.stalls import stalls_logged

WS_PING_SECONDS = 15.0
"Proxies commonly close a socket that has been silent for 30 or 60 s."
STREAMS_CLOSE_SECONDS = 2
"How long sockets and event streams have to end once their replies have."


class PortUnusable(Exception):
    """The address can't be listened on; the message is one line."""


class _Server(uvicorn.Server):
    """A server that, once stopped by a signal, lets what stands around it stop in order too.

    Uvicorn would raise the signal again, which ends the process before Postgres is stopped.
    """

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        with super().capture_signals():
            yield
            self._captured_signals.clear()

    def __init__(self, config: uvicorn.Config, drain: Callable[[], Awaitable[None]]) -> None:
        super().__init__(config)
        self._drain = drain

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._drain()
        await super().shutdown(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and sockets:
            host, port = sockets[0].getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            click.echo(f"Parley is ready: http://{shown}:{port}/graphql  (Ctrl-C stops it)")


async def serve(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM.

    Raises `PortUnusable` and whatever `open_database` and `prepare_schema` raise.
    """
    try:
        listening = _listen(settings.host, settings.port)
    except PortUnusable:
        DataFolder(settings.data_dir).refuse_if_held()  # the better answer to a second start
        raise
    async with open_database(settings) as held:
        await prepare_schema(settings, held.database)

        async def on_start(services: Services) -> None:
            _answer_knocks(services)
            if settings.database_url is None:
                await ingest_own_docs(services)

        app = create_app(settings, held.database, on_start, held.reads)

        async def drain() -> None:
            """Let replies end while their followers still listen, and begin no new ones."""
            services: Services = app.state.services
            services.turns.refuse_new()
            await services.running.close(timedelta(seconds=settings.shutdown_grace_seconds))

        server = _Server(
            uvicorn.Config(
                app,
                log_config=None,
                lifespan="off",
                proxy_headers=False,
                ws_per_message_deflate=False,
                ws_max_size=settings.max_body_bytes,
                ws_ping_interval=WS_PING_SECONDS,
                timeout_graceful_shutdown=STREAMS_CLOSE_SECONDS,
            ),
            drain,
        )
        # Not uvicorn's lifespan: that logs what goes wrong in a start as a traceback, and leaves
        # the parts open when Ctrl-C is pressed twice.
        async with app.router.lifespan_context(app), stalls_logged():
            await server.serve(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    """Take the port before anything slow is begun."""
    try:
        [family, kind, _, _, address] = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(2048)
    except OSError as error:
        name = "HOST" if isinstance(error, socket.gaierror) else "PORT"
        raise PortUnusable(
            f"{name}: can't listen on {host}:{port}: {error.strerror or error}"
        ) from error
    return listening


def _answer_knocks(services: Services) -> None:
    """Look for documents that a command line beside us has left in Postgres, when it says so."""
    looking: set[asyncio.Task[None]] = set()

    def look() -> None:
        if len(looking) < 2:  # one under way may have looked too early; one more will not have
            task = asyncio.create_task(services.ingestion.take_up_unfinished())
            looking.add(task)
            task.add_done_callback(looking.discard)

    asyncio.get_running_loop().add_signal_handler(KNOCK, look)
    signal.siginterrupt(KNOCK, False)
