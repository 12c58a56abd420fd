"""One scene for the sweeps, first with visitors and then with users; a fresh stranger for each."""

from collections.abc import AsyncGenerator
from typing import cast

import pytest
import pytest_asyncio

from db.engine import Database
from db.urls import parse_url
from graphql_api.settings import Settings
from tests.conftest import cloned
from tests.isolation.scenes import Scene, played


@pytest_asyncio.fixture(scope="package", loop_scope="package", params=["visitors", "users"])
async def scene(
    request: pytest.FixtureRequest, postgres_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[Scene]:
    """Alice's things, on a server that listens. No test may change them: that is what is tested."""
    folder = tmp_path_factory.mktemp("isolation") / "data"
    settings = Settings.model_construct(data_dir=folder, rate_limit="off")
    users = cast("str", request.param) == "users"
    async with cloned(postgres_url) as url:
        database = Database(parse_url(url))
        async with played(settings, database, users=users) as scene:
            yield scene
        await database.close()
