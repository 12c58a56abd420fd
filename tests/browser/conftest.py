"""A server with its own documentation, and a Chromium that all these tests share."""

from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from graphql_api.graphiql import STATIC
from graphql_api.static_assets import FILES
from tests.browser.chromium import DRIVER, EXECUTABLE, Chromium, Reader, chromium_driver
from tests.issuer import AUDIENCE, ISSUER, Issuer, issuing
from tests.npm import NoNode, install
from tests.openai_server import OpenAIServer, openai_server
from tests.process.processes import Server, served

Open = Callable[[Path], Coroutine[Any, Any, Reader]]


@pytest.fixture(scope="session")
def node() -> str:
    if EXECUTABLE is None:
        pytest.skip("GraphiQL is tested in chromium, which is not here")
    if not all(
        (STATIC / path.rpartition("/")[2]).exists() for each in FILES.values() for path in each
    ):
        pytest.skip("without its files GraphiQL would need the web: run `make assets`")
    try:
        return install(DRIVER)
    except NoNode as reason:
        pytest.skip(str(reason))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chromium(node: str) -> AsyncGenerator[Chromium]:
    assert EXECUTABLE
    async with chromium_driver(node, EXECUTABLE) as chromium:
        yield chromium


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_openai() -> AsyncGenerator[OpenAIServer]:
    async with openai_server() as server:
        yield server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_issuer() -> AsyncGenerator[Issuer]:
    async with issuing() as issuer:
        yield issuer


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def server(
    shared_openai: OpenAIServer,
    shared_issuer: Issuer,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncGenerator[Server]:
    """A server with Postgres and documents of its own, which lets in visitors and tokens."""
    settings = {
        "OPENAI_BASE_URL": shared_openai.url,
        "AUTH_JWKS_URL": shared_issuer.url,
        "AUTH_ISSUER": ISSUER,
        "AUTH_AUDIENCE": AUDIENCE,
        "ALLOW_ANONYMOUS": "true",
    }
    async with served(tmp_path_factory.mktemp("graphiql") / "data", **settings) as server:
        yield server


@pytest.fixture
def openai(shared_openai: OpenAIServer) -> Generator[OpenAIServer]:
    """The model. It knows nothing of what other tests have scripted."""
    yield shared_openai
    shared_openai._scripts["chat"].clear()


@pytest_asyncio.fixture(loop_scope="session")
async def open_graphiql(chromium: Chromium, server: Server) -> AsyncGenerator[Open]:
    """Open GraphiQL in the browser that remembers what a folder says."""
    opened: list[Reader] = []

    async def open(profile: Path) -> Reader:
        reader = await chromium.open(server, profile)
        opened.append(reader)
        return reader

    yield open
    for reader in opened:
        await reader.close()


@pytest_asyncio.fixture(loop_scope="session")
async def ann(open_graphiql: Open, tmp_path: Path) -> Reader:
    """Someone who opens GraphiQL for the first time."""
    return await open_graphiql(tmp_path / "ann")
