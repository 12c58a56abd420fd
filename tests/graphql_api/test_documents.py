"""Documents: taken in by text, address or file, found, shared, renamed and deleted."""

import hashlib
import io
from typing import Any
from uuid import uuid4

import docx
import fpdf
import pytest

from db.models import IngestionStatus
from graphql_api.settings import Settings
from tests.factories import make_document
from tests.operations import (
    ADD_DOCUMENT,
    GET_DOCUMENT,
    SEARCH,
    add_text,
    search,
    send,
    session,
)
from tests.people import Parley, Person

UPDATE = """mutation ($input: UpdateDocumentInput!) {
  updateDocument(input: $input) {
    __typename ... on UserError { message } ... on InvalidInput { field }
    ... on UpdateDocumentSuccess { document { id title visibility status } }
  }
}"""
DELETE = """mutation ($id: ID!) {
  deleteDocument(input: {id: $id}) {
    __typename ... on UserError { message } ... on DeleteDocumentSuccess { deletedId }
  }
}"""
UPLOAD = ADD_DOCUMENT.replace("$input: AddDocumentInput!", "$file: Upload!").replace(
    "input: $input", "input: {source: {file: $file}}"
)
ADMIN_KEY = str(uuid4())


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(
        update={"admin_subjects": frozenset({ADMIN_KEY.upper()}), "max_upload_bytes": 100_000}
    )


@pytest.fixture
def admin(parley: Parley) -> Person:
    return Person(parley.http, ADMIN_KEY)


async def upload(person: Person, name: str, data: bytes, type_: str) -> Any:
    answer = await person.upload(UPLOAD, "file", (name, data, type_), file=None)
    return answer["addDocument"]


async def document(person: Person, id: str) -> Any:
    return (await person.ask(GET_DOCUMENT, id=id))["document"]


async def update(person: Person, **input: Any) -> Any:
    return (await person.ask(UPDATE, input=input))["updateDocument"]


async def delete(person: Person, id: str) -> Any:
    return (await person.ask(DELETE, id=id))["deleteDocument"]


# --- what is taken --------------------------------------------------------------------


def a_pdf() -> bytes:
    pdf = fpdf.FPDF()
    pdf.set_title("The harbour")
    pdf.add_page()
    pdf.set_font("Helvetica")
    pdf.cell(text="The harbour closes at nine.")
    return bytes(pdf.output())


def a_docx() -> bytes:
    document = docx.Document()
    document.core_properties.title = "The harbour"
    document.add_paragraph("The harbour closes at nine.")
    file = io.BytesIO()
    document.save(file)
    return file.getvalue()


MARKDOWN = b"# The harbour\n\nThe harbour closes at nine.\n"
HTML = b"<html><title>The harbour</title><p>The harbour closes at nine.</p></html>"
DOCX_TYPE = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
FILES = {
    "harbour.md": (MARKDOWN, "text/markdown", "The harbour"),
    "harbour.txt": (b"The harbour closes at nine.", "text/plain", "harbour.txt"),
    "harbour.html": (HTML, "text/html", "The harbour"),
    "harbour.pdf": (a_pdf(), "application/pdf", "The harbour"),
    "harbour.docx": (a_docx(), DOCX_TYPE, "The harbour"),
}


@pytest.mark.parametrize("name", FILES)
async def test_an_uploaded_file_is_read_and_found(name: str, alice: Person, parley: Parley):
    data, type_, title = FILES[name]
    added = (await upload(alice, name, data, "application/octet-stream"))["document"]
    assert added == {
        "id": added["id"],
        "title": name,
        "sourceUrl": None,
        "originalFilename": name,
        "mimeType": type_,
        "checksum": hashlib.sha256(data).hexdigest(),
        "byteSize": len(data),
        "visibility": "PRIVATE",
        "status": "PENDING",
        "error": None,
        "chunkCount": 0,
    }
    await parley.documents_read()
    assert await document(alice, added["id"]) == {
        **added,
        "title": title,
        "status": "READY",
        "chunkCount": 1,
    }
    [found] = await search(alice, "When does the harbour close?")
    assert (found["marker"], found["documentId"]) == (1, added["id"])
    assert "closes at nine" in found["snippet"]


async def test_a_text_is_titled_by_its_first_line(alice: Person):
    added = await add_text(alice, "\n## The harbour\n\nIt closes at nine.")
    assert added["document"]["title"] == "The harbour"
    assert added["document"]["mimeType"] == "text/markdown"


async def test_a_given_title_is_kept(alice: Person, parley: Parley):
    added = (await add_text(alice, "# The harbour\n\nIt closes.", title="Opening hours"))[
        "document"
    ]
    await parley.documents_read()
    assert (await document(alice, added["id"]))["title"] == "Opening hours"


# --- what is refused ------------------------------------------------------------------


REFUSED_URLS = [
    "http://127.0.0.1/",
    "http://localhost:8000/graphql",
    "http://[::1]/",
    "http://169.254.169.254/latest/meta-data",
    "http://0x7f000001/",
    "ftp://example.com/",
    "file:///etc/passwd",
    "no address",
    "",
    "http://example.com/\0",
    "https://example.com/" + "x" * 2_000,
]


async def test_an_address_that_is_not_of_the_public_internet_is_invalid(alice: Person):
    for url in REFUSED_URLS:
        answer = await alice.ask(ADD_DOCUMENT, input={"source": {"url": url}})
        refused = answer["addDocument"]
        assert (refused["__typename"], refused.get("field")) == ("InvalidInput", "source.url"), url


async def test_a_text_that_can_not_be_stored_is_invalid(alice: Person):
    for text in ("", " \n", "a\0b", "a\ud800b", "x" * 100_001):
        refused = await add_text(alice, text)
        assert (refused["__typename"], refused.get("field")) == ("InvalidInput", "source.text")


REFUSED_FILES = {
    "empty.md": b"",
    "program": b"\x7fELF\x02\x01\x01" + bytes(100),
    "picture.png": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "archive.zip": b"PK\x03\x04" + bytes(100),
    "damaged.docx": a_docx()[:500],
    "x" * 501: b"text",
}


async def test_a_file_of_another_kind_is_invalid(alice: Person):
    for name, data in REFUSED_FILES.items():
        refused = await upload(alice, name, data, "text/markdown")
        expected = ("InvalidInput", "source.file")
        assert (refused["__typename"], refused.get("field")) == expected, name
    counted = await alice.ask("{ documents { totalCount } }")
    assert counted["documents"]["totalCount"] == 0


async def test_a_file_that_is_too_large_is_not_read(alice: Person):
    answer = await alice.http.post(
        "/graphql",
        data={"operations": "{}", "map": "{}"},
        files={"0": ("large.txt", b"x" * 100_001, "text/plain")},
        headers={**alice.headers, "GraphQL-Require-Preflight": "1"},
    )
    assert answer.status_code == 413
    [error] = answer.json()["errors"]
    assert "larger than 100,000 bytes" in error["message"]


async def test_a_file_that_was_not_uploaded_is_invalid(alice: Person):
    answer = await alice.ask(ADD_DOCUMENT, input={"source": {"file": "harbour.md"}})
    assert answer["addDocument"]["field"] == "source.file"


async def test_a_title_that_can_not_be_stored_is_invalid(alice: Person):
    for title in ("", " ", "a\0b", "a\ud800b", "x" * 501):
        refused = await add_text(alice, "A text", title=title)
        assert (refused["__typename"], refused.get("field")) == ("InvalidInput", "title")


async def test_a_source_is_exactly_one(alice: Person):
    sources: list[Any] = [{}, {"url": "https://a.example", "text": "b"}, {"text": None}]
    for source in sources:
        assert await alice.code(ADD_DOCUMENT, input={"source": source}) == "BAD_USER_INPUT"


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("damaged.pdf", b"%PDF-1.7\nnothing of a PDF"),
        ("without-text.html", b"<html><body><img src=x></body></html>"),
    ],
)
async def test_a_damaged_file_fails_with_a_reason(
    name: str, data: bytes, alice: Person, parley: Parley
):
    added = (await upload(alice, name, data, "text/plain"))["document"]
    await parley.documents_read()
    failed = await document(alice, added["id"])
    assert (failed["status"], failed["chunkCount"]) == ("FAILED", 0)
    assert failed["error"].endswith(".")
    assert "Error" not in failed["error"]


# --- the same again -------------------------------------------------------------------


async def test_the_same_bytes_again_are_the_same_document(alice: Person, parley: Parley):
    data, type_, _ = FILES["harbour.md"]
    first = (await upload(alice, "harbour.md", data, type_))["document"]
    await parley.documents_read()
    again = (await upload(alice, "other.md", data, type_))["document"]
    assert not parley.services.ingestion._tasks
    assert again == await document(alice, first["id"])
    counted = await alice.ask("{ documents { totalCount } }")
    assert counted["documents"]["totalCount"] == 1


async def test_two_people_may_have_the_same_document(alice: Person, bob: Person):
    ids = {(await add_text(person, "A text"))["document"]["id"] for person in (alice, bob)}
    assert len(ids) == 2


async def test_adding_a_failed_document_again_tries_again(alice: Person, parley: Parley):
    id = await make_document(
        parley.database,
        owner=alice.viewer,
        content="The harbour closes at nine.",
        status=IngestionStatus.FAILED,
        attempts=3,
    )
    again = (await add_text(alice, "The harbour closes at nine."))["document"]
    assert (again["id"], again["status"], again["error"]) == (str(id), "PENDING", None)
    await parley.documents_read()
    assert (await document(alice, str(id)))["status"] == "READY"
    assert await search(alice, "harbour")


# --- who sees it ----------------------------------------------------------------------


async def test_only_administrators_share(alice: Person, admin: Person, bob: Person):
    refused = await add_text(alice, "A text", visibility="SHARED")
    assert (refused["__typename"], refused["field"]) == ("InvalidInput", "visibility")
    shared = (await add_text(admin, "A text", visibility="SHARED"))["document"]
    assert shared["visibility"] == "SHARED"
    assert await document(bob, shared["id"]) is not None


async def test_a_document_is_shared_later_by_an_administrator_alone(
    alice: Person, admin: Person, bob: Person, parley: Parley
):
    own = (await add_text(alice, "A text"))["document"]["id"]
    refused = await update(alice, id=own, visibility="SHARED")
    assert (refused["__typename"], refused["field"]) == ("InvalidInput", "visibility")
    admins = (await add_text(admin, "The harbour closes at nine."))["document"]["id"]
    await parley.documents_read()
    assert await search(bob, "harbour") == []
    changed = await update(admin, id=admins, visibility="SHARED")
    assert changed["document"]["visibility"] == "SHARED"
    assert [each["documentId"] for each in await search(bob, "harbour")] == [admins]


async def test_sharing_what_is_shared_already_is_invalid(admin: Person):
    await add_text(admin, "A text", visibility="SHARED")
    private = (await add_text(admin, "A text"))["document"]["id"]
    refused = await update(admin, id=private, visibility="SHARED")
    assert (refused["__typename"], refused["field"]) == ("InvalidInput", "visibility")


async def test_a_document_is_renamed(alice: Person, parley: Parley):
    id = (await add_text(alice, "The harbour closes at nine."))["document"]["id"]
    await parley.documents_read()
    assert (await update(alice, id=id, title="Hours"))["document"]["title"] == "Hours"
    [found] = await search(alice, "harbour")
    assert found["title"] == "Hours"


async def test_a_document_renamed_while_it_is_read_keeps_the_new_name(
    alice: Person, parley: Parley
):
    id = (await upload(alice, "harbour.md", MARKDOWN, "text/markdown"))["document"]["id"]
    await update(alice, id=id, title="Hours")
    await parley.documents_read()
    assert (await document(alice, id))["title"] == "Hours"


# --- deleted --------------------------------------------------------------------------


async def test_a_deleted_document_is_found_no_more(alice: Person, parley: Parley):
    id = (await add_text(alice, "The harbour closes at nine."))["document"]["id"]
    await parley.documents_read()
    assert await delete(alice, id) == {"__typename": "DeleteDocumentSuccess", "deletedId": id}
    assert await document(alice, id) is None
    assert await search(alice, "harbour") == []
    assert (await delete(alice, id))["__typename"] == "NotFound"


async def test_a_document_deleted_while_it_is_read_is_gone(alice: Person, parley: Parley):
    id = (await add_text(alice, "The harbour closes at nine."))["document"]["id"]
    await delete(alice, id)
    await parley.documents_read()
    assert await document(alice, id) is None
    assert await search(alice, "harbour") == []


async def test_a_citation_outlives_its_document(alice: Person, parley: Parley):
    id = (await add_text(alice, "The harbour closes at nine."))["document"]["id"]
    await parley.documents_read()
    sent = await send(alice, "When does the harbour close?")
    [before] = sent["reply"]["citations"]
    assert before["document"] == {"id": id}
    await delete(alice, id)
    history = (await session(alice, sent["session"]["id"]))["messages"]["edges"]
    [after] = history[-1]["node"]["citations"]
    assert after == {**before, "document": None}


async def test_what_is_not_there_is_not_found(alice: Person):
    for id in (str(uuid4()), "no uuid", ""):
        assert await document(alice, id) is None
        assert (await delete(alice, id))["__typename"] == "NotFound"
        assert (await update(alice, id=id, title="Mine"))["__typename"] == "NotFound"


# --- lists and searches ---------------------------------------------------------------


async def test_documents_are_filtered(alice: Person, parley: Parley):
    made = {
        status.value: str(await make_document(parley.database, owner=alice.viewer, status=status))
        for status in IngestionStatus
    }
    listed = """query ($status: IngestionStatus, $checksum: String, $sourceUrl: String) {
      documents(status: $status, checksum: $checksum, sourceUrl: $sourceUrl) {
        totalCount edges { node { id } } } }"""
    for status, id in made.items():
        found = (await alice.ask(listed, status=status))["documents"]
        assert found == {"totalCount": 1, "edges": [{"node": {"id": id}}]}
    for nothing in ({"checksum": "0" * 64}, {"sourceUrl": "https://example.com/"}):
        assert (await alice.ask(listed, **nothing))["documents"]["totalCount"] == 0


async def test_a_search_for_none_or_too_many_is_bad_user_input(alice: Person):
    for limit in (0, -1, 51):
        assert await alice.code(SEARCH, text="x", limit=limit) == "BAD_USER_INPUT"


async def test_a_search_for_what_no_text_holds_is_bad_user_input(alice: Person):
    for query in ("a\0b", "a\ud800b", "x" * 2_001):
        assert await alice.code(SEARCH, text=query) == "BAD_USER_INPUT"


async def test_a_search_for_nothing_finds_nothing(alice: Person):
    assert await search(alice, "") == []
    assert await search(alice, "?!") == []
