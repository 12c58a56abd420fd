"""What every request has: an id, a line in the log without secrets, an answer when we fail."""

from collections.abc import Generator
from typing import Any
from uuid import UUID, uuid4

import pytest
import structlog
from structlog.testing import LogCapture

from graphql_api import queries
from graphql_api.settings import Settings
from resolvers.users import viewer_profile
from tests.operations import SEND, send
from tests.people import Parley, Person, open_parley

ORIGIN = "https://app.example"


@pytest.fixture
def lines() -> Generator[list[Any]]:
    """What is logged, as events with their fields."""
    configuration = structlog.get_config()
    capture = LogCapture()
    structlog.configure(processors=[structlog.contextvars.merge_contextvars, capture])
    yield capture.entries
    structlog.configure(**configuration)


async def test_a_request_gets_an_id(alice: Person):
    answer = await alice.http.get("/health")
    assert UUID(answer.headers["X-Request-ID"]).version == 7


async def test_an_id_that_is_given_is_kept_down_to_the_audit_log(alice: Person):
    headers = {**alice.headers, "X-Request-ID": "trace-4711/1"}
    body = {"query": SEND, "variables": {"input": {"content": "Hello"}}}
    answer = await alice.http.post("/graphql", json=body, headers=headers)
    assert answer.headers["X-Request-ID"] == "trace-4711/1"
    log = "{ viewer { auditLog { edges { node { requestId } } } } }"
    [entry] = (await alice.ask(log))["viewer"]["auditLog"]["edges"]
    assert entry["node"]["requestId"] == "trace-4711/1"


@pytest.mark.parametrize("given", ["", "a b", "a\tb", '"', "x" * 129])
async def test_an_id_that_could_forge_a_log_is_replaced(alice: Person, given: str):
    answer = await alice.http.get("/health", headers={"X-Request-ID": given})
    assert UUID(answer.headers["X-Request-ID"]).version == 7


async def test_a_line_says_what_was_asked_for_and_by_whom_nothing(alice: Person, lines: list[Any]):
    secret = alice.key
    await alice.http.get(f"/sessions/{secret}", headers=alice.headers)
    await alice.http.get(f"/chat/history?session_id={secret}&chapter=x", headers=alice.headers)
    await alice.http.get(f"/nowhere/{secret}?{uuid4()}=1", headers=alice.headers)
    await alice.http.get(
        "/graphql",
        params={"query": '{ session(id: "confidential") { id } }'},
        headers=alice.headers,
    )
    requests = [line for line in lines if line["event"] == "request"]
    assert [(line["path"], line["status"]) for line in requests] == [
        ("/sessions/{session_id}", 404),
        ("/chat/history", 200),
        ("/nowhere/…", 404),
        ("/graphql", 200),
    ]
    assert requests[1]["parameters"] == ["session_id", "chapter"]
    assert all(line["request_id"] and line["milliseconds"] >= 0 for line in requests)
    assert secret not in str(lines)
    assert "confidential" not in str(lines)


async def test_what_stands_where_a_name_should_is_not_logged(alice: Person, lines: list[Any]):
    await alice.http.get("/graphql?I+live+in+Bergen=1&query={__typename}", headers=alice.headers)
    [line] = [line for line in lines if line["event"] == "request"]
    assert line["parameters"] == ["…", "query"]


async def test_health_is_not_logged(alice: Person, lines: list[Any]):
    await alice.http.get("/health")
    assert lines == []


async def test_what_people_say_is_never_logged(alice: Person, lines: list[Any]):
    await send(alice, "The word is quicksilver.", selectedText="mercury", chapter="alchemy")
    assert lines
    for word in ("quicksilver", "mercury", "alchemy"):
        assert word not in str(lines)


async def test_a_failure_is_answered_with_its_id_alone(
    parley: Parley, alice: Person, lines: list[Any], monkeypatch: pytest.MonkeyPatch
):
    async def fail(*_: Any) -> None:
        raise RuntimeError("the password is swordfish")

    monkeypatch.setattr("graphql_api.auth.Identities.viewer", fail)
    answer = await alice.http.post("/graphql", json={"query": "{ __typename }"})
    assert answer.status_code == 500
    id = answer.headers["X-Request-ID"]
    [error] = answer.json()["errors"]
    assert error["extensions"] == {"code": "INTERNAL", "requestId": id}
    assert "swordfish" not in answer.text
    [failed] = [line for line in lines if line["event"] == "request.failed"]
    assert failed["request_id"] == id


async def test_a_masked_error_names_the_request(
    alice: Person, lines: list[Any], monkeypatch: pytest.MonkeyPatch
):
    async def fail(*_: Any) -> Any:
        raise RuntimeError("the password is swordfish")

    assert queries.viewer_profile is viewer_profile
    monkeypatch.setattr(queries, "viewer_profile", fail)
    answer = await alice.http.post(
        "/graphql", json={"query": "{ viewer { id } }"}, headers=alice.headers
    )
    [error] = answer.json()["errors"]
    assert error["extensions"]["requestId"] == answer.headers["X-Request-ID"]
    assert "swordfish" not in answer.text


# --- other origins --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("allowed", "let_in"), [({ORIGIN}, True), ({"*"}, True), ({"https://other.example"}, False)]
)
async def test_a_page_of_an_allowed_origin_may_ask(
    settings: Settings, parley: Parley, allowed: set[str], let_in: bool
):
    update = {"allowed_origins": frozenset(allowed)}
    async with open_parley(settings.model_copy(update=update), parley.database) as parley:
        preflight = await parley.http.options(
            "/graphql",
            headers={
                "Origin": ORIGIN,
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "authorization,content-type,x-session-id",
            },
        )
        assert (preflight.status_code == 200) is let_in
        person = parley.person()
        answer = await person.http.post(
            "/graphql",
            json={"query": "{ __typename }"},
            headers={**person.headers, "Origin": ORIGIN},
        )
        shown = answer.headers.get("Access-Control-Allow-Origin")
        assert (shown in (ORIGIN, "*")) is let_in


async def test_by_default_no_other_origin_may(alice: Person):
    answer = await alice.http.post(
        "/graphql", json={"query": "{ __typename }"}, headers={"Origin": ORIGIN}
    )
    assert "Access-Control-Allow-Origin" not in answer.headers
