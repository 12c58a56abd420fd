"""Forms (GraphQL multipart requests) that no honest client sends, or that a foreign page could."""

import json

import pytest

from tests.protocol.exchange import Exchange, check_refused, exchange
from tests.protocol.forms import (
    ADDED,
    FILE,
    GIVEN,
    MAP,
    MAPPED,
    OPERATIONS,
    WHOLE,
    Form,
    form,
    part,
)
from tests.streaming.wire import Served

pytestmark = [
    pytest.mark.asyncio(loop_scope="package"),
    pytest.mark.usefixtures("unharmed"),
]

DEEP = 50_000
HUGE = "9" * 5_000
LATIN_1 = OPERATIONS.replace('"x"', '"caf\u00e9"').encode("latin-1")


def mapped(map: str, name: str | None = None) -> Form:
    return Form(f"a map {name or map}", form(GIVEN, part("map", map), FILE))


def operated(operations: str, name: str | None = None) -> Form:
    return Form(
        f"operations {name or operations}", form(part("operations", operations), MAPPED, FILE)
    )


WRONG = [
    mapped("[]"),
    mapped("null"),
    mapped("1"),
    mapped('"0"'),
    mapped("{"),
    mapped("", "of nothing"),
    mapped('{"0": [1]}'),
    mapped('{"0": "x"}'),
    mapped('{"0": "variables.file"}'),
    mapped('{"0": null}'),
    mapped('{"0": [null]}'),
    mapped('{"0": [""]}'),
    mapped('{"0": ["query"]}'),
    mapped('{"0": ["variables"]}'),
    mapped('{"0": ["variables.nowhere.file"]}'),
    mapped('{"0": ["variables.title.0"]}'),
    mapped('{"0": ["variables.title.length"]}'),
    mapped('{"0": ["variables.file.0"]}'),
    mapped('{"0": ["0.variables.file"]}'),
    mapped('{"1": ["variables.file"]}', "of a file that is missing"),
    mapped("[" * DEEP, "of lists in lists"),
    mapped('{"0": [%s]}' % HUGE, "of 5,000 digits"),  # noqa: UP031
    operated("null"),
    operated("1"),
    operated("[]"),
    operated("{"),
    operated(f"[{OPERATIONS}]", "in a list, where batching is off"),
    operated('{"query": "{ __typename }", "variables": []}'),
    operated('{"query": 1, "variables": {"file": null}}'),
    operated("[" * DEEP, "of lists in lists"),
    Form("no operations", form(MAPPED, FILE)),
    Form("no map", form(GIVEN, FILE)),
    Form("no file", form(GIVEN, MAPPED)),
    Form("operations as a file", form(part("operations", OPERATIONS, "a.json"), MAPPED, FILE)),
    Form("a map as a file", form(GIVEN, part("map", MAP, "a.json"), FILE)),
    Form("a file as text", form(GIVEN, MAPPED, part("0", "x"))),
    Form("bad UTF-8 in operations", form(part("operations", b"\xff"), MAPPED, FILE)),
    Form("bad UTF-8 in a title", form(part("operations", LATIN_1), MAPPED, FILE)),
    Form("an empty form", form()),
    Form("a form that breaks off", WHOLE[:-40]),
    Form("no form at all", b"\0" * 100),
    Form("two thousand files", form(GIVEN, MAPPED, *[FILE] * 2_000)),
    Form("no boundary", content_type="multipart/form-data"),
    Form("an empty boundary", content_type="multipart/form-data; boundary="),
    Form("another boundary", content_type="multipart/form-data; boundary=another"),
    Form("no header of its own", guard={}),
    Form("other headers of its own", guard={"X-Custom": "1", "X-Requested-With": "XMLHttpRequest"}),
]


@pytest.mark.parametrize("row", WRONG, ids=[row.name for row in WRONG])
async def test_a_form_that_is_wrong_is_refused(server: Served, row: Form):
    answer = await exchange(server.port, headers=row.headers, body=row.body)
    check_refused(answer, 400, "BAD_USER_INPUT")


@pytest.mark.parametrize("header", ["GraphQL-Require-Preflight", "apollo-require-preflight"])
async def test_a_form_that_is_right_is_taken(server: Served, header: str):
    """Or those above would be refused for something else."""
    right = Form("right", guard={header: "true"})
    answer = await exchange(server.port, headers=right.headers, body=right.body)
    assert answer.json == ADDED


@pytest.mark.parametrize("charset", ["hex", "idna", "utf-16", "latin-1", "nonsense"])
async def test_a_form_in_another_charset_is_refused(server: Served, charset: str):
    form = Form("", content_type=f"{Form('').content_type}; charset={charset}")
    answer = await exchange(server.port, headers=form.headers, body=form.body)
    check_refused(answer, 415, "BAD_USER_INPUT")


async def test_a_file_may_stand_in_several_places(server: Served):
    query = """mutation ($f: Upload!, $g: Upload!) {
      a: addDocument(input: {source: {file: $f}}) { ...D }
      b: addDocument(input: {source: {file: $g}}) { ...D }
      c: addDocument(input: {source: {file: $g}}) { ...D }
    } fragment D on AddDocumentResult { ... on AddDocumentSuccess { document { byteSize } } }"""
    operations = json.dumps({"query": query, "variables": {"f": None, "g": None}})
    body = form(
        part("operations", operations), part("map", '{"0": ["variables.f", "variables.g"]}'), FILE
    )
    answer = await exchange(server.port, headers=Form("").headers, body=body)
    sizes = {each["document"]["byteSize"] for each in answer.json["data"].values()}
    assert sizes == {len("A lease is a promise.")}


async def test_an_empty_file_is_the_resolvers_business(server: Served):
    empty = form(GIVEN, MAPPED, part("0", "", "empty.txt"))
    answer = await exchange(server.port, headers=Form("empty").headers, body=empty)
    assert answer.json == {"data": {"addDocument": {"__typename": "InvalidInput"}}}


async def test_who_leaves_in_the_middle_of_a_file_does_no_harm(server: Served):
    length = {"Content-Length": str(len(WHOLE))}
    headers = {**Form("whole").headers, **length}
    request = await Exchange.begin(server.port, headers=headers)
    request.send(WHOLE[:-60])
    await request.writer.drain()
    request.abort()
