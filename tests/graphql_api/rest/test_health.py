"""Whether it lives, and how its database is."""

from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import text

from db.connections import Patience
from db.embedded import EmbeddedPostgres
from db.engine import Database
from db.migration import newest_revision, upgrade
from db.urls import parse_url
from graphql_api.settings import Settings
from tests.graphql_api.rest.frontends import Frontend
from tests.operations import until
from tests.people import Parley, open_parley
from tests.proxy import Proxy, wire
from tests.statements import recorded

IMPATIENT = Patience(retry=0.2)


@pytest.fixture
async def proxied(settings: Settings, database_url: str) -> AsyncGenerator[tuple[Proxy, Parley]]:
    """An application whose wire to Postgres can be cut."""
    async with wire(database_url) as (proxy, url):
        database = Database(parse_url(url), patience=IMPATIENT)
        async with open_parley(settings, database) as parley:
            yield proxy, parley
        await database.close()


def statuses(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["status"]


async def test_a_process_that_answers_is_alive(parley: Parley):
    with recorded(parley.database) as statements:
        answer = await parley.http.get("/health")
        # Not all that watch processes can read.
        head = await parley.http.head("/health")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    assert head.status_code == 200
    assert statements == []


async def test_a_database_that_answers_is_healthy(parley: Parley):
    answer = await parley.http.get("/db-health")
    found = answer.json()
    assert found.pop("latency_ms") > 0
    # The start may still be looking what the index lacks.
    open = found["pool"].pop("idle") + found["pool"].pop("in_use")
    assert answer.status_code == 200
    assert found == {
        "status": "ok",
        "reason": None,
        "schema": {"current": newest_revision(), "expected": newest_revision()},
        "pool": {"size": 5, "overflow": 0, "max_overflow": 15},
    }
    assert 1 <= open <= 5


async def test_the_pool_is_shown_as_it_is(parley: Parley):
    async with parley.database.transaction() as transaction:
        await transaction.rows(text("SELECT 1"), {})
        pool = (await parley.http.get("/db-health")).json()["pool"]
        assert pool["in_use"] >= 1
    await until(lambda: parley.database.pool.in_use == 0)
    assert (await parley.http.get("/db-health")).json()["pool"]["in_use"] == 0


async def test_health_needs_nobody_to_be_believed(parley: Parley):
    for path in ("/health", "/db-health"):
        answer = await parley.http.get(path, headers={"X-Session-ID": "nobody"})
        assert answer.status_code == 200


@pytest.mark.parametrize(
    ("statements", "current"),
    [
        (["UPDATE alembic_version SET version_num = '0000'"], "0000"),
        (["DROP TABLE alembic_version"], None),
    ],
)
async def test_a_schema_that_is_behind_is_not_healthy(
    parley: Parley, statements: Sequence[str], current: str | None
):
    for statement in statements:
        await parley.database.rows(text(statement), {})
    answer = await parley.http.get("/db-health")
    assert statuses(answer) == (503, "behind")
    assert answer.json()["schema"] == {"current": current, "expected": newest_revision()}


async def test_the_next_releases_schema_is_healthy(parley: Parley):
    """While that is rolled out, no balancer takes the processes of this one out."""
    await parley.database.rows(text("UPDATE alembic_version SET version_num = '9999'"), {})
    answer = await parley.http.get("/db-health")
    assert statuses(answer) == (200, "ok")
    assert answer.json()["schema"] == {"current": "9999", "expected": newest_revision()}


async def test_a_database_that_is_away_is_down_and_the_process_alive(
    proxied: tuple[Proxy, Parley],
):
    proxy, parley = proxied
    proxy.cut()
    answer = await parley.http.get("/db-health")
    assert statuses(answer) == (503, "down")
    assert int(answer.headers["Retry-After"]) > 0
    assert answer.json()["latency_ms"] is None
    assert (await parley.http.get("/health")).status_code == 200
    proxy.restore()
    assert statuses(await parley.http.get("/db-health")) == (200, "ok")


@pytest.mark.parametrize("code", ["57P03", "53300", "28P01"])
async def test_what_is_told_of_an_outage_names_no_place(proxied: tuple[Proxy, Parley], code: str):
    proxy, parley = proxied
    url = parley.database.url.sqlalchemy
    proxy.refuse(code, "no such user at this host")
    answer = await parley.http.get("/db-health")
    assert statuses(answer) == (503, "down")
    assert answer.json()["reason"].isidentifier()
    for secret in (url.host, str(url.port), url.username, url.password, url.database, "no such"):
        assert secret
        assert secret not in answer.text


async def test_a_database_that_says_nothing_is_down(
    proxied: tuple[Proxy, Parley], monkeypatch: pytest.MonkeyPatch
):
    proxy, parley = proxied
    monkeypatch.setattr("graphql_api.rest.health.PATIENCE_SECONDS", 0.2)
    await parley.database.engine.dispose()
    proxy.fall_silent()
    answer = await parley.http.get("/db-health")
    assert statuses(answer) == (503, "down")
    assert answer.json()["reason"] == "TimeoutError"


async def test_a_postgres_that_was_stopped_is_down(settings: Settings, tmp_path: Path):
    postgres = EmbeddedPostgres(tmp_path / "postgres")
    database = Database(parse_url(postgres.start()), patience=IMPATIENT)
    try:
        await upgrade(database)
        async with open_parley(settings, database) as parley:
            assert statuses(await parley.http.get("/db-health")) == (200, "ok")
            postgres.stop()
            assert statuses(await parley.http.get("/db-health")) == (503, "down")
            frontend = Frontend(parley.person())
            assert (await frontend.chat("Hello"))["persisted"] is False
            assert (await frontend.refused("GET", "/sessions"))["status"] == 503
            await database.close()
    finally:
        postgres.stop()
