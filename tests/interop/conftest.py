"""A server that most of these tests share, and pages that run the examples against it."""

from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
import pytest_asyncio

from db.engine import Database
from db.urls import parse_url
from graphql_api.auth import anonymous_viewer
from tests.conftest import cloned
from tests.factories import make_session, make_turn
from tests.interop.pages import Frontend
from tests.interop.sites import CLIENTS, SHOWN, Client, Site, command, write_site
from tests.npm import NoNode, install
from tests.openai_server import OpenAIServer, openai_server
from tests.process.processes import Server, served
from tests.replicas.pairs import Road, road_to

MESSAGES = 200


@pytest.fixture(scope="session")
def node() -> str:
    try:
        return install(CLIENTS)
    except NoNode as reason:
        pytest.skip(str(reason))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_openai() -> AsyncGenerator[OpenAIServer]:
    async with openai_server() as server:
        yield server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_url(postgres_url: str) -> AsyncGenerator[str]:
    async with cloned(postgres_url) as url:
        yield url


class History(NamedTuple):
    """A session with more messages than a page gives. The key is its owner's."""

    key: str
    session: str
    messages: list[str]
    "Their ids, in the order of reading."


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def history(shared_url: str) -> History:
    key = str(uuid4())
    owner = anonymous_viewer(key)
    database = Database(parse_url(shared_url))
    session = await make_session(database, owner=owner)
    ids: list[str] = []
    for _ in range(MESSAGES // 2):
        ids += map(str, await make_turn(database, owner=owner, session=session))
    await database.close()
    return History(key, str(session), ids)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def server(
    shared_url: str, shared_openai: OpenAIServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[Server]:
    settings = {"DATABASE_URL": shared_url, "OPENAI_BASE_URL": shared_openai.url}
    async with served(tmp_path_factory.mktemp("interop") / "data", **settings) as server:
        yield server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def road(server: Server) -> AsyncGenerator[Road]:
    """The way of the pages to the server."""
    async with road_to(server.url) as road:
        yield road


@pytest.fixture(scope="session", params=SHOWN, ids=[client.name for client in SHOWN])
def client(request: pytest.FixtureRequest) -> Client:
    return request.param


@pytest.fixture(scope="session")
def site(
    client: Client,
    road: Road,
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
) -> Site:
    """The client's example, made ready to run once."""
    node = "" if client.is_python else request.getfixturevalue("node")
    address = f"127.0.0.1:{urlsplit(road.url).port}"
    site = write_site(tmp_path_factory.mktemp(client.name), node, client, address)
    if client.build:
        client.build(site)
    return site


@pytest.fixture
def openai(shared_openai: OpenAIServer) -> Generator[OpenAIServer]:
    """The model. It knows nothing of what other tests have scripted."""
    yield shared_openai
    shared_openai._scripts["chat"].clear()


@pytest.fixture
def key() -> str | None:
    """Whose the pages are; null: of someone who was never here before."""
    return None


@pytest_asyncio.fixture(loop_scope="session")
async def frontend(
    client: Client, site: Site, key: str | None, tmp_path: Path
) -> AsyncGenerator[Frontend]:
    """The example in a browser. Nothing in its console: what clients warn of there is a fault."""
    frontend = Frontend(command(site, client), tmp_path, key)
    yield frontend
    await frontend.close()
    assert frontend.console() == ""
