"""Two servers and one browser that most of these tests share."""

from collections.abc import AsyncGenerator, Generator
from uuid import uuid4

import pytest
import pytest_asyncio

from db.engine import Database
from db.urls import parse_url
from tests.conftest import cloned
from tests.npm import NoNode, install
from tests.openai_server import OpenAIServer, openai_server
from tests.replicas.browsers import CLIENTS, Browser, opened_browser
from tests.replicas.pairs import Pair, Road, Rows, paired, road_to

LEASE_SECONDS = 3.0
"What every crash is waited out for; ticks come twelve times as often."
GRACE_SECONDS = 3.0
"Long enough to look at a server that drains, on a busy machine."


@pytest.fixture(scope="session")
def node() -> str:
    try:
        return install(CLIENTS)
    except NoNode as reason:
        pytest.skip(str(reason))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser(node: str) -> AsyncGenerator[Browser]:
    async with opened_browser(node) as browser:
        yield browser


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_openai() -> AsyncGenerator[OpenAIServer]:
    async with openai_server() as server:
        yield server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_url(postgres_url: str) -> AsyncGenerator[str]:
    async with cloned(postgres_url) as url:
        yield url


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def rows(shared_url: str) -> AsyncGenerator[Rows]:
    database = Database(parse_url(shared_url))
    yield Rows(database)
    await database.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def road(shared_url: str) -> AsyncGenerator[Road]:
    """The way of replica A to Postgres."""
    async with road_to(shared_url) as road:
        yield road


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_pair(
    shared_url: str,
    road: Road,
    shared_openai: OpenAIServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncGenerator[Pair]:
    settings = {
        "OPENAI_BASE_URL": shared_openai.url,
        "REPLY_LEASE_SECONDS": str(LEASE_SECONDS),
        "SHUTDOWN_GRACE_SECONDS": str(GRACE_SECONDS),
    }
    async with paired(
        tmp_path_factory.mktemp("pair"),
        settings | {"DATABASE_URL": road.url},
        settings | {"DATABASE_URL": shared_url},
    ) as pair:
        yield pair


@pytest_asyncio.fixture(loop_scope="session")
async def pair(shared_pair: Pair, browser: Browser) -> AsyncGenerator[Pair]:
    """Both replicas, started again where the test before ended one."""
    await shared_pair.ready()
    yield shared_pair
    browser.close_pages()


@pytest.fixture
def openai(shared_openai: OpenAIServer) -> Generator[OpenAIServer]:
    """The model. It knows nothing of what other tests have scripted."""
    yield shared_openai
    shared_openai._scripts["chat"].clear()


@pytest.fixture
def key() -> str:
    return str(uuid4())
