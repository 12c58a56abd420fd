"""A server on a folder of its own that most of these tests share."""

from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio

from tests.process.processes import Home, Server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def home(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Home]:
    """A home with a server that was ready once; tests may end it and start it again."""
    home = Home(tmp_path_factory.mktemp("home") / "data")
    try:
        await home.server.ready()
        yield home
    finally:
        await home.server.clean_up()


@pytest_asyncio.fixture(loop_scope="session")
async def server(home: Home) -> Server:
    """The server that runs at home, started again where the test before left none."""
    if home.server.process.code is not None:
        await home.start_again()
    return home.server
