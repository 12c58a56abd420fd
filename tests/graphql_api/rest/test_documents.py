"""Documents over REST: listed, and taken in as text, address or file."""

import hashlib
from typing import Any
from uuid import uuid4

import pytest

from db.models import IngestionStatus
from graphql_api.settings import Settings
from tests.factories import make_document
from tests.graphql_api.rest.frontends import Frontend
from tests.people import Parley, Person

ADMIN_KEY = str(uuid4())
MARKDOWN = b"# The harbour\n\nThe harbour closes at nine.\n"
FILE = ("harbour.md", MARKDOWN, "text/markdown")


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(
        update={"admin_subjects": frozenset({ADMIN_KEY}), "max_upload_bytes": 10_000}
    )


@pytest.fixture
def admin(parley: Parley) -> Frontend:
    return Frontend(Person(parley.http, ADMIN_KEY))


async def listed(frontend: Frontend, **params: Any) -> list[str]:
    return [each["title"] for each in (await frontend.get("/documents", **params))["documents"]]


# --- adding ---------------------------------------------------------------------------


async def test_a_file_is_stored_and_read(alice: Frontend, parley: Parley):
    added = await alice.ask("POST", "/documents", 201, files={"file": FILE})
    assert added == {
        "id": added["id"],
        "title": "harbour.md",
        "source_url": None,
        "original_filename": "harbour.md",
        "mime_type": "text/markdown",
        "checksum": hashlib.sha256(MARKDOWN).hexdigest(),
        "byte_size": len(MARKDOWN),
        "visibility": "PRIVATE",
        "status": "PENDING",
        "error": None,
        "chunk_count": 0,
        "created_at": added["created_at"],
        "updated_at": added["updated_at"],
    }
    await parley.documents_read()
    [read] = (await alice.get("/documents"))["documents"]
    assert (read["title"], read["status"], read["chunk_count"]) == ("The harbour", "READY", 1)
    answer = await alice.chat("When does the harbour close?")
    assert [each["document_id"] for each in answer["citations"]] == [added["id"]]


async def test_a_file_may_have_a_title(alice: Frontend):
    added = await alice.ask("POST", "/documents", 201, files={"file": FILE}, data={"title": "Mine"})
    assert added["title"] == "Mine"


async def test_a_text_is_stored(alice: Frontend):
    added = await alice.ask("POST", "/documents", 201, json={"text": MARKDOWN.decode()})
    assert (added["title"], added["mime_type"]) == ("The harbour", "text/markdown")


async def test_the_same_bytes_again_are_the_same_document(alice: Frontend, parley: Parley):
    first = await alice.ask("POST", "/documents", 201, json={"text": MARKDOWN.decode()})
    await parley.documents_read()
    again = await alice.ask("POST", "/documents", 200, files={"file": FILE})
    assert again["id"] == first["id"]


async def test_administrators_share(admin: Frontend, alice: Frontend):
    body = {"text": "Hello", "visibility": "SHARED"}
    assert (await admin.ask("POST", "/documents", 201, json=body))["visibility"] == "SHARED"
    assert await listed(alice) == ["Hello"]
    problem = await alice.refused("POST", "/documents", json=body)
    assert (problem["code"], problem["field"]) == ("INVALID_INPUT", "visibility")
    problem = await alice.refused(
        "POST", "/documents", files={"file": FILE}, data={"visibility": "SHARED"}
    )
    assert (problem["code"], problem["field"]) == ("INVALID_INPUT", "visibility")


WRONG: dict[str, tuple[dict[str, Any], str | None]] = {
    "nothing": ({"json": {}}, None),
    "both": ({"json": {"text": "a", "url": "https://example.org"}}, None),
    "empty": ({"json": {"text": ""}}, "text"),
    "too large": ({"json": {"text": "x" * 10_001}}, "text"),
    "no text": ({"json": {"text": 1}}, "text"),
    "no address": ({"json": {"url": "harbour"}}, "url"),
    "a private address": ({"json": {"url": "http://127.0.0.1/"}}, "url"),
    "a title": ({"json": {"text": "a", "title": "\0"}}, "title"),
    "a visibility": ({"json": {"text": "a", "visibility": "ALL"}}, "visibility"),
    "a list": ({"json": []}, None),
    "an empty file": ({"files": {"file": ("a.md", b"", "text/markdown")}}, "file"),
    "a picture": ({"files": {"file": ("a.png", b"\x89PNG\r\n\x1a\n\0\0", "image/png")}}, "file"),
    "another field": ({"files": {"document": FILE}}, "file"),
    "a form's title": ({"files": {"file": FILE}, "data": {"title": ""}}, "title"),
    "a form's visibility": ({"files": {"file": FILE}, "data": {"visibility": "x"}}, "visibility"),
}


async def test_what_can_not_be_taken_is_named(alice: Frontend):
    for name, (sent, field) in WRONG.items():
        problem = await alice.refused("POST", "/documents", **sent)
        assert (problem["status"], problem["code"]) == (400, "INVALID_INPUT"), name
        assert problem.get("field") == field, name
    assert await listed(alice) == []


async def test_a_file_that_is_too_large_is_413(alice: Frontend):
    file = ("a.md", b"x" * 10_001, "text/markdown")
    problem = await alice.refused("POST", "/documents", files={"file": file})
    assert (problem["status"], problem["code"]) == (413, "BAD_USER_INPUT")
    assert "10,000" in problem["detail"]


@pytest.mark.parametrize(
    ("content_type", "content"),
    [
        ("application/json", b"{"),
        ("application/json", b"\xff"),
        ("application/json", b"[" * 100_000),
        ("application/json", b""),
        ("text/markdown", MARKDOWN),
        ("multipart/form-data", MARKDOWN),
        ("multipart/form-data; boundary=x", b"--x\r\nnonsense"),
        ("", MARKDOWN),
    ],
)
async def test_a_body_that_is_neither_is_a_problem(
    alice: Frontend, content_type: str, content: bytes
):
    headers = {"Content-Type": content_type}
    problem = await alice.refused("POST", "/documents", content=content, headers=headers)
    assert problem["status"] == 400


# --- listing --------------------------------------------------------------------------


async def test_a_visitor_sees_their_own_and_the_shared(
    alice: Frontend, bob: Frontend, parley: Parley
):
    await make_document(parley.database, owner=alice.person.viewer, title="Hers")
    await make_document(parley.database, owner=None, title="Shared")
    assert await listed(alice) == ["Shared", "Hers"]
    assert await listed(bob) == ["Shared"]


async def test_documents_are_listed_by_status(alice: Frontend, parley: Parley):
    viewer = alice.person.viewer
    for status in IngestionStatus:
        await make_document(parley.database, owner=viewer, title=status, status=status)
    for status in IngestionStatus:
        assert await listed(alice, status=status.value) == [status]


async def test_pages_of_any_size_walk_every_document_once(alice: Frontend, parley: Parley):
    for number in range(5):
        await make_document(parley.database, owner=alice.person.viewer, title=str(number))
    for size in (1, 2, 5, 100):
        page = await alice.get("/documents", limit=size)
        seen = [each["title"] for each in page["documents"]]
        while page["next_cursor"] is not None:
            page = await alice.get("/documents", limit=size, cursor=page["next_cursor"])
            seen += [each["title"] for each in page["documents"]]
        assert seen == ["4", "3", "2", "1", "0"], size


@pytest.mark.parametrize(
    "params", [{"limit": "0"}, {"limit": "101"}, {"cursor": "x"}, {"status": "LOST"}]
)
async def test_a_wrong_page_is_a_problem(alice: Frontend, params: dict[str, str]):
    assert (await alice.refused("GET", "/documents", params=params))["status"] == 400


@pytest.mark.parametrize("name", ["a%00.md", "%ED%A0%80.md", "%0a.md"])
async def test_a_name_that_hides_what_can_not_be_stored_is_taken_without_it(
    alice: Frontend, name: str
):
    file = (name, b"The harbour closes at nine.", "text/markdown")
    added = await alice.ask("POST", "/documents", 201, files={"file": file})
    assert added["original_filename"] == name
    assert added["title"].isprintable()
