"""The keys that tokens are verified with: fetched, remembered, learnt, withdrawn, away."""

import asyncio

import jwt
import pytest

from graphql_api import tokens
from graphql_api.settings import Settings
from tests.graphql_api.test_tokens import WHO, refused
from tests.issuer import Issuer, make_key
from tests.people import Parley, open_parley


@pytest.fixture
def settings(settings: Settings, issuer: Issuer) -> Settings:
    return settings.model_copy(update=issuer.settings)


async def test_keys_are_fetched_once(parley: Parley, issuer: Issuer):
    assert issuer.asked == 0
    people = [parley.bearer(issuer.token(str(number))) for number in range(20)]
    await asyncio.gather(*(person.ask(WHO) for person in people))
    await people[0].ask(WHO)
    assert issuer.asked == 1


async def test_a_new_key_is_learnt_when_a_token_has_it(parley: Parley, issuer: Issuer):
    await parley.bearer(issuer.token()).ask(WHO)
    issuer.keys.append(make_key("ES256"))
    assert await parley.bearer(issuer.token()).ask(WHO)
    assert issuer.asked == 2


async def test_a_key_that_was_withdrawn_is_believed_no_more(
    parley: Parley, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tokens, "ASKS_SECONDS", 0.0)
    old = issuer.token()
    await parley.bearer(old).ask(WHO)
    issuer.keys = [make_key()]
    await parley.bearer(issuer.token()).ask(WHO)
    assert "unknown key" in await refused(parley, f"Bearer {old}")


async def test_unknown_keys_do_not_make_us_ask_all_the_time(parley: Parley, issuer: Issuer):
    for _ in range(20):
        assert "unknown key" in await refused(parley, f"Bearer {issuer.token(key=make_key())}")
    assert issuer.asked == tokens.ASKS


async def test_a_published_key_without_an_id_is_tried_with_each_token(
    parley: Parley, issuer: Issuer
):
    del issuer.keys[0].public["kid"]
    claims = issuer.claims("ann")
    for headers in ({}, {"kid": "some"}):
        token = jwt.encode(claims, issuer.keys[0].private, algorithm="EdDSA", headers=headers)
        assert await parley.bearer(token).ask(WHO)


async def test_a_token_without_a_key_id_is_tried_with_each(parley: Parley, issuer: Issuer):
    issuer.keys = [make_key(), make_key()]
    token = jwt.encode(issuer.claims("ann"), issuer.keys[0].private, algorithm="EdDSA")
    assert await parley.bearer(token).ask(WHO)


async def test_while_keys_are_awaited_others_are_served(
    settings: Settings, issuer: Issuer, parley: Parley
):
    update = {"allow_anonymous": True}
    async with open_parley(settings.model_copy(update=update), parley.database) as parley:
        issuer.gate.clear()
        waiting = asyncio.create_task(parley.bearer(issuer.token()).ask(WHO))
        assert await parley.person().ask(WHO)
        assert not waiting.done()
        issuer.gate.set()
        assert await waiting


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, b""),
        (302, b""),
        (200, b"<html>"),
        (200, b"[]"),
        (200, b'{"keys": []}'),
        (200, b'{"keys": [null, 1, {}, {"kty": "RSA"}, {"kty": "EC", "crv": "P-256"}]}'),
        (200, b'{"keys": "none"}'),
        (200, b" " * (tokens.MAX_KEYS_BYTES + 1)),
    ],
)
async def test_an_issuer_that_gives_no_keys_is_an_outage(
    parley: Parley, issuer: Issuer, status: int, body: bytes, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tokens, "RETRY_SECONDS", 0.0)
    issuer.status, issuer.body = status, body
    person = parley.bearer(issuer.token())
    answer = await person.http.post("/graphql", json={"query": WHO}, headers=person.headers)
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "1"
    assert answer.json()["errors"][0]["extensions"] == {"code": "UNAVAILABLE"}

    issuer.status, issuer.body = 200, None
    assert await person.ask(WHO)


async def test_known_keys_serve_while_the_issuer_is_away(
    parley: Parley, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
):
    await parley.bearer(issuer.token()).ask(WHO)
    monkeypatch.setattr(tokens, "KEYS_FRESH_SECONDS", 0.0)
    issuer.status = 500
    assert await parley.bearer(issuer.token()).ask(WHO)


async def test_while_the_issuer_is_away_no_token_with_a_new_key_is_called_false(
    parley: Parley, issuer: Issuer
):
    """A 401 would sign its user out; who has waited may be believed."""
    await parley.bearer(issuer.token()).ask(WHO)
    issuer.keys.append(make_key())
    issuer.status = 500
    person = parley.bearer(issuer.token())
    for _ in range(5):
        answer = await person.http.post("/graphql", json={"query": WHO}, headers=person.headers)
        assert answer.status_code == 503
    assert issuer.asked == 2, "it is left alone for a moment"
