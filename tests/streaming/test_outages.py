"""The database goes away and comes back, in the middle of everything."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import event

from db import messages
from db.engine import Database
from db.errors import DatabaseUnavailable
from db.models import MessageStatus
from db.urls import parse_url
from db.viewer import Viewer
from graphql_api.settings import Settings
from tests.operations import SEND, until
from tests.people import open_parley
from tests.proxy import Proxy, wire
from tests.streaming.scripted import (
    Follower,
    Replica,
    ScriptedModel,
    expire_lease,
    replica,
    sql,
    stored,
    stores,
)


@pytest.fixture(autouse=True)
def _no_circuit_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let whoever asks again find out, as those do who wait for Retry-After."""
    monkeypatch.setattr("db.circuit.PROBE_SECONDS", 0.0)


@pytest.fixture
async def proxied(database_url: str) -> AsyncGenerator[tuple[Proxy, str]]:
    """A wire to the test's database, and the URL of its near end."""
    async with wire(database_url) as (proxy, near):
        yield proxy, near


@pytest.fixture
def proxy(proxied: tuple[Proxy, str]) -> Proxy:
    return proxied[0]


@pytest.fixture
async def a(proxied: tuple[Proxy, str], voices: ScriptedModel) -> AsyncGenerator[Replica]:
    """Writes replies at the near end of the wire. `b` is never cut off."""
    async with replica(proxied[1], voices) as opened:
        yield opened


AWAY = ["cut", "57P03", "57P01", "53300", "XX000"]
"""The wire is cut; Postgres starts, was stopped, or has no connection left; a proxy before it, as
Neon's, has no code for what it says."""


def go_away(proxy: Proxy, how: str) -> None:
    if how == "cut":
        proxy.cut()
    else:
        proxy.refuse(how, "the database system is not for you now")


async def under_way(
    a: Replica, b: Replica, voices: ScriptedModel, viewer: Viewer
) -> tuple[Any, Follower]:
    """Begin a reply whose row says "One", and which is followed where it is written."""
    sent = await a.send(viewer)
    follower = a.follow(viewer, sent.reply.id)
    voices["Question"].say("One")
    await follower.has("One")
    await stores(b, viewer, sent.reply, "One")
    return sent, follower


@pytest.mark.parametrize("how", AWAY)
async def test_live_followers_go_on_and_the_row_catches_up(
    a: Replica, b: Replica, proxy: Proxy, voices: ScriptedModel, viewer: Viewer, how: str
):
    sent, follower = await under_way(a, b, voices, viewer)
    go_away(proxy, how)
    voices["Question"].say(", two")
    await follower.has(", two")
    await until(lambda: proxy.refused >= 3)
    voices["Question"].say(", three")
    await follower.has(", three")
    proxy.restore()
    await stores(b, viewer, sent.reply, "One, two, three")
    voices["Question"].finish(", four")
    ended = await follower.ended()
    assert (ended.status, ended.content) == (MessageStatus.COMPLETE, "One, two, three, four")
    assert ended == await stored(b.database, viewer, sent.reply.id)


@pytest.mark.parametrize("how", AWAY)
async def test_a_reply_that_ends_meanwhile_is_stored_when_it_comes_back(
    a: Replica, b: Replica, proxy: Proxy, voices: ScriptedModel, viewer: Viewer, how: str
):
    sent, follower = await under_way(a, b, voices, viewer)
    go_away(proxy, how)
    voices["Question"].finish(", two")
    await follower.has(", two")
    await until(lambda: proxy.refused >= 3)
    assert (await stored(b.database, viewer, sent.reply.id)).status == MessageStatus.STREAMING
    proxy.restore()
    ended = await follower.ended()
    assert (ended.status, ended.content) == (MessageStatus.COMPLETE, "One, two")
    assert ended == await stored(b.database, viewer, sent.reply.id)


@pytest.mark.parametrize("is_finished", [False, True])
async def test_longer_than_the_lease_is_interrupted_with_all_the_text(
    a: Replica, b: Replica, proxy: Proxy, voices: ScriptedModel, viewer: Viewer, is_finished: bool
):
    sent, follower = await under_way(a, b, voices, viewer)
    proxy.cut()
    voices["Question"].say(", two")
    if is_finished:
        voices["Question"].finish()
    await follower.has(", two")
    await until(lambda: proxy.refused >= 3)
    await expire_lease(b.database, sent.reply)
    assert (await stored(b.database, viewer, sent.reply.id)).status == MessageStatus.INTERRUPTED
    proxy.restore()
    ended = await follower.ended()
    assert (ended.status, ended.content) == (MessageStatus.INTERRUPTED, "One, two")
    assert ended == await stored(b.database, viewer, sent.reply.id)


async def test_a_lease_of_a_second_runs_out_by_itself(
    proxied: tuple[Proxy, str], b: Replica, voices: ScriptedModel, viewer: Viewer
):
    proxy, url = proxied
    async with replica(url, voices, lease=timedelta(seconds=1)) as a:
        sent, follower = await under_way(a, b, voices, viewer)
        proxy.cut()
        voices["Question"].say(", two")
        await follower.has(", two")
        async with asyncio.timeout(10):
            while (await stored(b.database, viewer, sent.reply.id)).status != "INTERRUPTED":  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        proxy.restore()
        ended = await follower.ended()
    assert (ended.status, ended.content) == (MessageStatus.INTERRUPTED, "One, two")


async def test_a_follower_elsewhere_outlasts_an_outage(
    a: Replica, b: Replica, proxy: Proxy, voices: ScriptedModel, viewer: Viewer
):
    """Here it is the reader who is cut off."""
    sent = await b.send(viewer)
    follower = a.follow(viewer, sent.reply.id)
    voices["Question"].say("One")
    await follower.has("One")
    proxy.cut()
    await until(lambda: proxy.refused >= 2)
    voices["Question"].say(", two")
    proxy.restore()
    await follower.has(", two")
    proxy.cut()
    voices["Question"].finish(", three")
    await b.replies.ended(viewer, sent.reply)
    proxy.restore()
    assert (await follower.ended()).content == "One, two, three"


async def test_connections_that_are_killed_in_mid_stream_lose_nothing(
    a: Replica, b: Replica, voices: ScriptedModel, viewer: Viewer
):
    """As a failover or an administrator does it, again and again."""
    _, follower = await under_way(a, b, voices, viewer)
    kill = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()"""
    expected = "One"
    for number in range(10):
        await sql(b.database, kill)
        voices["Question"].say(f", {number}")
        await follower.has(f", {number}")
        expected += f", {number}"
    voices["Question"].finish()
    ended = await follower.ended()
    assert (ended.status, ended.content) == (MessageStatus.COMPLETE, expected)


async def test_a_database_that_takes_no_writes_is_away_too(
    a: Replica, b: Replica, voices: ScriptedModel, viewer: Viewer
):
    """A failover can leave us on a replica for a while."""
    _, follower = await under_way(a, b, voices, viewer)
    name = (await sql(b.database, "SELECT current_database()"))[0][0]
    read_only = f"ALTER DATABASE {name} SET default_transaction_read_only"
    await sql(b.database, f"{read_only} = on")
    await a.database.engine.dispose()
    voices["Question"].say(", two")
    await follower.has(", two")
    with suppress(DatabaseUnavailable):
        await a.tick()
    await sql(b.database, f"{read_only} = off")
    await a.database.engine.dispose()
    voices["Question"].finish(", three")
    ended = await follower.ended()
    assert (ended.status, ended.content) == (MessageStatus.COMPLETE, "One, two, three")


# --- before a turn began --------------------------------------------------------------


@pytest.mark.parametrize("how", AWAY)
async def test_a_send_while_it_is_away_is_unavailable_and_can_be_repeated(
    proxied: tuple[Proxy, str],
    b: Replica,
    voices: ScriptedModel,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
):
    def model(_: Settings) -> ScriptedModel:
        return voices

    proxy, url = proxied
    monkeypatch.setattr("graphql_api.app._model", model)
    database = Database(parse_url(url))
    async with open_parley(settings, database) as parley:
        alice, input = parley.person(), {"content": "Question", "messageId": str(uuid4())}
        go_away(proxy, how)
        answer = await parley.http.post(
            "/graphql",
            json={"query": SEND, "variables": {"input": input}},
            headers={"X-Session-ID": alice.key},
        )
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) > 0
        [error] = answer.json()["errors"]
        assert error["extensions"]["code"] == "UNAVAILABLE"
        assert not await _rows_of(b, alice.viewer)
        proxy.restore()
        voices["Question"].finish("Here.")
        sent = (await alice.ask(SEND, input=input))["sendMessage"]
        assert sent["reply"]["content"] == "Here."
        assert sent["session"]["messageCount"] == 2
    await database.close()


@pytest.mark.parametrize("point", ["INSERT INTO users", "INSERT INTO audit_logs"])
async def test_a_beginning_that_is_cut_off_is_not_half_done(
    a: Replica, b: Replica, proxy: Proxy, voices: ScriptedModel, viewer: Viewer, point: str
):
    def cut(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith(point):
            proxy.cut()

    id, engine = str(uuid4()), a.database.engine.sync_engine
    event.listen(engine, "before_cursor_execute", cut)
    with pytest.raises(DatabaseUnavailable):
        await a.send(viewer, message_id=id)
    event.remove(engine, "before_cursor_execute", cut)
    assert not await _rows_of(b, viewer)
    assert not a.running._runs
    proxy.restore()
    voices["Question"].finish("Here.")
    sent = await a.send(viewer, message_id=id)
    assert (await a.replies.ended(viewer, sent.reply)).content == "Here."


async def test_a_beginning_whose_commit_was_not_heard_of_is_never_begun_twice(
    a: Replica, b: Replica, proxy: Proxy, voices: ScriptedModel, viewer: Viewer
):
    """The turn stands with nobody to write it: its lease tells, and the retry joins it."""

    def cut(_connection: Any) -> None:
        asyncio.get_running_loop().call_soon(proxy.cut)

    id, engine = str(uuid4()), a.database.engine.sync_engine
    event.listen(engine, "commit", cut)
    with suppress(DatabaseUnavailable):
        await a.send(viewer, message_id=id)
    event.remove(engine, "commit", cut)
    proxy.restore()
    voices["Question"].finish("Here.")
    again = await b.send(viewer, message_id=id)
    await expire_lease(b.database, again.reply)
    ended = await b.follow(viewer, again.reply.id).ended()
    assert ended.status in (MessageStatus.INTERRUPTED, MessageStatus.COMPLETE)
    assert await _rows_of(b, viewer) == 2


async def _rows_of(where: Replica, viewer: Viewer) -> int:
    query = """SELECT (SELECT count(*) FROM chat_messages WHERE user_id = :viewer)
        + (SELECT count(*) FROM chat_sessions WHERE user_id = :viewer) * 100
        + (SELECT count(*) FROM users WHERE id = :viewer) * 1000"""
    count = (await sql(where.database, query, viewer=viewer.user_id))[0][0]
    return count - 1100 if count >= 1100 else count


@pytest.mark.parametrize("message_id", [None, "0199a1b2-3c4d-7e5f-8a6b-7c8d9e0f1a2b"])
async def test_nothing_is_begun_behind_a_reply_that_can_not_be_stored(
    proxied: tuple[Proxy, str],
    b: Replica,
    voices: ScriptedModel,
    viewer: Viewer,
    monkeypatch: pytest.MonkeyPatch,
    message_id: str | None,
):
    """Whoever sends it would wait for as long as the database is away, and so would the message."""
    monkeypatch.setattr("resolvers.runs.STORE_SECONDS", 0.2)
    proxy, url = proxied
    async with replica(url, voices, lease=timedelta(seconds=1)) as a:
        sent, follower = await under_way(a, b, voices, viewer)
        proxy.cut()
        await until(lambda: a.run_of(sent.reply).is_lost(a.running.lease))
        session = str(sent.session.id)
        with pytest.raises(DatabaseUnavailable):
            await a.send(viewer, "Second", session_id=session, message_id=message_id)
        assert not a.turns._beginnings
        proxy.restore()
        assert (await follower.ended()).status == MessageStatus.INTERRUPTED
        [[count]] = await sql(b.database, "SELECT count(*) FROM chat_messages")
        assert count == 2
        again = await a.send(viewer, "Second", session_id=session, message_id=message_id)
        assert again.reply.status == MessageStatus.STREAMING


async def test_reads_while_it_is_away_are_unavailable(
    a: Replica, proxy: Proxy, voices: ScriptedModel, viewer: Viewer
):
    sent = await a.send(viewer)
    proxy.cut()
    with pytest.raises(DatabaseUnavailable):
        await messages.message(viewer, a.database, sent.reply.id)
    with pytest.raises(DatabaseUnavailable):
        await a.follow(viewer, sent.reply.id).all()
    proxy.restore()
    assert await messages.message(viewer, a.database, sent.reply.id)
