"""Who asks is said by a credential alone: nothing else in a request can name a user."""

import re
from typing import Any

import pytest

from tests.isolation import operations, routes
from tests.isolation.scenes import Scene
from tests.isolation.servers import port_of
from tests.people import Parley
from tests.streaming.wire import opened

NAMES_A_USER = re.compile(
    r"user|owner|viewer|realm|subject|tenant|anonymous|visitor|account|author|principal|customer"
    r"|member|person|actor|impersonat|on_?behalf|\bsub\b",
    re.IGNORECASE,
)
EXCEPTION = "Mutation.claimAnonymousUser.input.anonymousKey"
"A credential too: whoever shows it has proved that the visitor was they."
WHO = "{ viewer { id } }"


def test_no_argument_names_a_user():
    # The last part: what a field is called says nothing of its arguments.
    named = {path for path, _ in operations.taken() if NAMES_A_USER.search(path.split(".", 2)[2])}
    assert named == {EXCEPTION}


async def test_no_parameter_of_rest_names_a_user(parley: Parley):
    document: Any = (await parley.http.get("/openapi.json")).json()
    paths = [*routes.taken(document), *document["paths"]]
    assert [path for path in paths if NAMES_A_USER.search(path)] == []
    assert document["components"]["securitySchemes"].keys() == {"Visitor", "Token"}


def test_a_name_of_a_user_is_noticed():
    for name in ("userId", "owner_id", "X-Forwarded-User", "viewer", "tenant", "input.authorId"):
        assert NAMES_A_USER.search(name)


@pytest.mark.asyncio(loop_scope="package")
async def test_nothing_else_in_a_request_says_who_asks(scene: Scene):
    bob, her_id = scene.stranger(), scene.hers.id("user")
    his_id = (await bob.ask(WHO))["viewer"]["id"]
    claims = {"sub": her_id, "userId": her_id, "user_id": her_id, "viewer": her_id, "owner": her_id}
    headers = {f"X-{name}": her_id for name in ("User-ID", "Forwarded-User", "Viewer", "Tenant")}
    headers |= {"Remote-User": her_id, "Cookie": f"userId={her_id}; viewer={her_id}"}
    asked = await bob.http.post(
        "/graphql",
        json={"query": WHO, "variables": claims, "extensions": claims, **claims},
        headers={**bob.headers, **headers},
        params=claims,
    )
    assert asked.json()["data"]["viewer"]["id"] == his_id
    for body in ({"message": "Hello", **claims}, {"message": "Hello"}):
        chat = await bob.http.post(
            "/chat", json=body, headers={**bob.headers, **headers}, params=claims
        )
        assert chat.status_code == 200
        assert not scene.hers.is_in(chat.text)


@pytest.mark.asyncio(loop_scope="package")
async def test_nothing_else_in_a_sockets_first_message_says_who_asks(scene: Scene):
    bob, her_id = scene.stranger(), scene.hers.id("user")
    his_id = (await bob.ask(WHO))["viewer"]["id"]
    claims = dict.fromkeys(("userId", "user", "viewer", "sub", "X-User-ID", "owner"), her_id)
    async with opened(port_of(scene.parley)) as socket:
        await socket.init(**claims, **bob.headers)
        await socket.subscribe("1", WHO)
        assert (await socket.receive())["payload"]["data"]["viewer"]["id"] == his_id
