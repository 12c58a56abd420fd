"""A Better Auth server and Parley on one Postgres: its users are Parley's, and nothing else is."""

import base64
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text

from db import migration
from db.engine import Database
from db.urls import parse_url
from tests.conftest import cloned
from tests.interop.better_auth.servers import HERE, BetterAuth, better_auth, documented_sql
from tests.npm import NoNode, install
from tests.people import Person
from tests.process.conversation import send
from tests.process.processes import Server, run, served, until
from tests.streaming.wire import opened

pytestmark = pytest.mark.asyncio(loop_scope="session")

VIEWER = "{ viewer { id name email isAnonymous } }"
SESSIONS = "{ sessions { edges { node { id } } } }"
SESSION = "query ($id: ID!) { session(id: $id) { id } }"
CREATE_SESSION = """
mutation {
  createSession(input: { title: "Mine" }) { ... on CreateSessionSuccess { session { id } } }
}
"""
CLAIM = """
mutation ($key: String!) {
  claimAnonymousUser(input: { anonymousKey: $key }) {
    ... on ClaimAnonymousUserSuccess { user { id } sessionCount }
    ... on UserError { message }
  }
}
"""
TABLES = "SELECT table_name FROM information_schema.tables WHERE table_schema = :schema"
COUNT_TABLES = TABLES.replace("table_name", "count(*)")
CAN_READ = "SELECT has_table_privilege('better_auth', 'chat_messages', 'SELECT')"
ROLE_PASSWORD = "a%20long%20one"
ROTATE = 'UPDATE auth.jwks SET "expiresAt" = now()'


@pytest.fixture(scope="session")
def node() -> str:
    try:
        return install(HERE)
    except NoNode as reason:
        pytest.skip(str(reason))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shared_url(node: str, postgres_url: str) -> AsyncGenerator[str]:
    async with cloned(postgres_url) as url:
        yield url


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shared_database(shared_url: str) -> AsyncGenerator[Database]:
    database = Database(parse_url(shared_url))
    yield database
    await database.close()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def auth(
    node: str, shared_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[BetterAuth]:
    async with better_auth(tmp_path_factory.mktemp("auth"), node, shared_url) as auth:
        yield auth


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server(
    auth: BetterAuth, shared_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[Server]:
    """A Parley that takes Better Auth's tokens, and visitors as well."""
    settings = {"DATABASE_URL": shared_url, "ALLOW_ANONYMOUS": "true", **auth.settings}
    async with served(tmp_path_factory.mktemp("parley") / "data", **settings) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def page(auth: BetterAuth, server: Server) -> Any:
    """What a browser saw that used the documented frontend code."""
    return await auth.visit(server)


@pytest_asyncio.fixture(loop_scope="session")
async def token(auth: BetterAuth) -> str:
    """The token of somebody who has just signed up."""
    return await auth.token(await auth.sign_up("Ann"))


@pytest.fixture
def ann(server: Server, token: str) -> Person:
    return Person(server.http, token=token)


async def is_taken(server: Server, token: str) -> bool:
    """Say whether Parley believes a token."""
    headers = {"Authorization": f"Bearer {token}"}
    answer = await server.http.post("/graphql", json={"query": VIEWER}, headers=headers)
    return answer.status_code == 200 and "errors" not in answer.json()


def tampered(token: str) -> str:
    """Change whom a token is about, and keep its signature."""
    header, payload, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    claims["sub"] = "somebody-else"
    changed = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"{header}.{changed}.{signature}"


# --- who somebody is ------------------------------------------------------------------


async def test_a_user_who_wrote_something_is_who_better_auth_says(auth: BetterAuth, server: Server):
    account = await auth.sign_up("Ann")
    ann = Person(server.http, token=await auth.token(account))
    await ann.ask(CREATE_SESSION)
    viewer = (await ann.ask(VIEWER))["viewer"]
    assert viewer.pop("id")
    assert viewer == {"name": "Ann", "email": account.email, "isAnonymous": False}


async def test_a_user_who_signs_in_again_is_the_same_viewer(auth: BetterAuth, server: Server):
    account = await auth.sign_up("Ann")
    before = Person(server.http, token=await auth.token(account))
    sent = await send(before, "Who am I?")
    later = Person(server.http, token=await auth.token(await auth.sign_in(account)))
    assert (await later.ask(VIEWER)) == (await before.ask(VIEWER))
    assert (await later.ask(SESSION, id=sent["session"]["id"]))["session"]


async def test_another_user_sees_nothing_of_it(ann: Person, auth: BetterAuth, server: Server):
    sent = await send(ann, "Who am I?")
    bob = Person(server.http, token=await auth.token(await auth.sign_up("Bob")))
    assert (await bob.ask(SESSION, id=sent["session"]["id"]))["session"] is None
    assert (await bob.ask(SESSIONS))["sessions"]["edges"] == []


async def test_an_anonymous_user_of_better_auth_is_a_viewer_of_their_own(
    auth: BetterAuth, server: Server
):
    one, two = [
        Person(server.http, token=await auth.token(await auth.sign_in_anonymously()))
        for _ in range(2)
    ]
    sent = await send(one, "Who am I?")
    assert (await one.ask(SESSION, id=sent["session"]["id"]))["session"]
    assert (await two.ask(SESSION, id=sent["session"]["id"]))["session"] is None


async def test_what_a_visitor_said_is_found_after_signing_up_and_claiming_it(
    ann: Person, server: Server
):
    visitor = server.person()
    session = (await send(visitor, "Who am I?"))["session"]
    claimed = (await ann.ask(CLAIM, key=visitor.key))["claimAnonymousUser"]
    assert claimed["sessionCount"] == 1
    [edge] = (await ann.ask(SESSIONS))["sessions"]["edges"]
    assert edge["node"]["id"] == session["id"]


# --- tokens ---------------------------------------------------------------------------


async def test_a_socket_takes_the_token_in_its_first_message(
    ann: Person, token: str, server: Server
):
    async with opened(server.port) as socket:
        await socket.init(authorization=f"Bearer {token}")
        await socket.subscribe("1", "{ event: viewer { id } }")
        assert (await socket.next())["id"] == (await ann.ask(VIEWER))["viewer"]["id"]


async def test_a_token_that_was_tampered_with_is_refused(token: str, server: Server):
    headers = {"Authorization": f"Bearer {tampered(token)}"}
    answer = await server.http.post("/graphql", json={"query": VIEWER}, headers=headers)
    assert answer.status_code == 401
    [error] = answer.json()["errors"]
    assert error["extensions"]["code"] == "UNAUTHENTICATED"


async def test_a_socket_with_a_token_that_was_tampered_with_is_closed(token: str, server: Server):
    async with opened(server.port) as socket:
        payload = {"authorization": f"Bearer {tampered(token)}"}
        await socket.send({"type": "connection_init", "payload": payload})
        assert await socket.close_code() == 4403


async def test_the_token_of_better_auths_own_session_is_refused(auth: BetterAuth, server: Server):
    account = await auth.sign_up("Ann")
    headers = {"Authorization": f"Bearer {account.session}"}
    answer = await server.http.post("/graphql", json={"query": VIEWER}, headers=headers)
    assert answer.status_code == 401
    assert "is no JWT" in answer.json()["errors"][0]["message"]


async def test_a_new_key_is_found_without_a_restart_and_the_old_one_still_serves(
    auth: BetterAuth, server: Server, shared_database: Database
):
    account = await auth.sign_up("Ann")
    old = await auth.token(account)
    assert await is_taken(server, old)
    await shared_database.rows(text(ROTATE), {})
    new = await auth.token(account)
    assert new.split(".")[0] != old.split(".")[0]
    # Parley asks for keys every few seconds at most.
    await until(lambda: is_taken(server, new), bool)
    assert await is_taken(server, old)


# --- one Postgres ---------------------------------------------------------------------


async def test_the_tables_of_the_two_do_not_meet(auth: BetterAuth, shared_database: Database):
    public, own = [
        {name for [name] in await shared_database.rows(text(TABLES), {"schema": schema})}
        for schema in ("public", "auth")
    ]
    assert own == {"user", "session", "account", "verification", "jwks"}
    assert "chat_sessions" in public
    assert not public & own


async def test_migrating_parley_beside_better_auth_finds_nothing_to_do(
    auth: BetterAuth, shared_url: str, tmp_path: Path
):
    migrated = await run("migrate", cwd=tmp_path, DATABASE_URL=shared_url)
    assert migrated.code == 0, migrated
    assert "up to date" in migrated.out


async def test_the_models_are_still_what_the_migrations_made(
    auth: BetterAuth, shared_database: Database
):
    def check(connection: Connection) -> None:
        config: Config = migration.alembic_config()
        config.attributes["connection"] = connection
        command.check(config)

    async with shared_database.engine.begin() as connection:
        await connection.run_sync(check)


async def test_parley_can_be_migrated_into_a_database_that_better_auth_was_in_first(
    node: str, postgres_url: str, tmp_path: Path
):
    async with cloned(postgres_url, "template0") as url:
        (tmp_path / "auth").mkdir()
        async with better_auth(tmp_path / "auth", node, url) as auth:
            account = await auth.sign_up("Ann")
            migrated = await run("migrate", cwd=tmp_path, DATABASE_URL=url)
            assert migrated.code == 0, migrated
            assert await auth.sign_in(account)


async def test_better_auth_can_have_a_role_that_cannot_read_conversations(
    node: str, postgres_url: str, tmp_path: Path
):
    async with cloned(postgres_url) as url:
        database = Database(parse_url(url))
        for statement in documented_sql():
            await database.rows(text(statement), {})
        try:
            own_url = f"postgresql://better_auth:{ROLE_PASSWORD}@{url.rpartition('@')[2]}"
            without = ["options: ", "create schema"]
            async with better_auth(tmp_path, node, own_url, without=without) as auth:
                assert await auth.token(await auth.sign_up("Ann"))
            [[tables]] = await database.rows(text(COUNT_TABLES), {"schema": "auth"})
            [[can_read]] = await database.rows(text(CAN_READ), {})
            assert (tables, can_read) == (5, False)
        finally:
            for statement in ("DROP OWNED BY better_auth", "DROP ROLE better_auth"):
                await database.rows(text(statement), {})
            await database.close()


# --- the documented frontend ----------------------------------------------------------


async def test_the_documented_page_lets_a_visitor_in(page: Any):
    assert page["visitor"]["data"]["viewer"]["isAnonymous"]


async def test_the_documented_page_asks_as_the_user_over_every_transport(page: Any):
    viewer = page["overHttp"]["data"]["viewer"]
    assert (viewer["name"], viewer["isAnonymous"]) == ("Page", False)
    assert page["overSocket"]["data"]["viewer"] == viewer
    ends = [event["data"]["reply"]["__typename"] for event in page["overEventStream"]]
    assert ends[-1] == "ReplyEnded"


async def test_the_documented_page_takes_a_new_token_when_its_socket_reconnects(page: Any):
    assert page["tokensAskedToReconnect"] == 1
    assert page["afterReconnecting"] == page["overSocket"]


async def test_the_documented_page_claims_what_the_visitor_said(page: Any):
    said = page["visit"]["data"]["sendMessage"]["session"]["id"]
    [edge] = page["sessions"]["data"]["sessions"]["edges"]
    assert edge["node"]["id"] == said
    assert page["keyLeft"] is None
