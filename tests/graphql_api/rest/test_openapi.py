"""The OpenAPI document: it is whole, and its examples are what the routes really give."""

import json
import re
from collections.abc import Generator
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from graphql_api.rest import examples
from tests.people import Parley

ROUTES = {
    ("post", "/chat"),
    ("post", "/chat/agent"),
    ("get", "/chat/history"),
    ("delete", "/chat/history"),
    ("get", "/sessions"),
    ("post", "/sessions"),
    ("get", "/sessions/{session_id}"),
    ("patch", "/sessions/{session_id}"),
    ("delete", "/sessions/{session_id}"),
    ("get", "/documents"),
    ("post", "/documents"),
    ("get", "/health"),
    ("get", "/db-health"),
}
HEALTH = {"/health", "/db-health"}


@pytest.fixture
async def document(parley: Parley) -> Any:
    return (await parley.http.get("/openapi.json")).json()


def operations(document: Any) -> Generator[tuple[str, str, Any]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def contents(operation: Any) -> Generator[tuple[str, Any]]:
    """Give all that a route takes or gives, by media type."""
    for place in (operation.get("requestBody", {}), *operation["responses"].values()):
        yield from place.get("content", {}).items()


def shown(content: Any) -> list[Any]:
    """Give the examples of a content."""
    several = [each["value"] for each in content.get("examples", {}).values()]
    return several + ([content["example"]] if "example" in content else [])


async def test_it_holds_every_route_and_no_other(document: Any):
    assert {(method, path) for method, path, _ in operations(document)} == ROUTES


async def test_it_says_what_it_is_of(document: Any):
    assert document["openapi"].startswith("3.1")
    assert document["info"]["title"] == "Parley"
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", document["info"]["version"])
    assert document["info"]["description"]
    schemes = document["components"]["securitySchemes"]
    assert schemes["Visitor"]["name"] == "X-Session-ID"
    assert schemes["Token"]["scheme"] == "bearer"


async def test_every_route_is_described(document: Any):
    tags = {tag["name"] for tag in document["tags"]}
    for method, path, operation in operations(document):
        where = f"{method} {path}"
        assert operation["summary"], where
        assert set(operation["tags"]) <= tags, where
        for parameter in operation.get("parameters", []):
            assert parameter["description"], f"{where} {parameter['name']}"
        for status, response in operation["responses"].items():
            assert response["description"] not in ("", "Successful Response"), f"{where} {status}"


async def test_every_field_is_described(document: Any):
    for name, schema in document["components"]["schemas"].items():
        for field, described in schema["properties"].items():
            if (name, field) != ("Health", "status"):
                assert described.get("description"), f"{name}.{field}"


async def test_every_route_has_examples_of_what_it_takes_and_gives(document: Any):
    for method, path, operation in operations(document):
        for media_type, content in contents(operation):
            assert shown(content), f"{method} {path} {media_type}"


async def test_every_example_fits_its_schema(document: Any):
    resource = DRAFT202012.create_resource(document)
    registry = Registry[Any]().with_resource("urn:parley", resource)
    checked = 0
    for _, _, operation in operations(document):
        for media_type, content in contents(operation):
            schema = json.loads(json.dumps(content["schema"]).replace('"#/', '"urn:parley#/'))
            validator = Draft202012Validator(schema, registry=registry)
            for example in shown(content):
                if media_type != "multipart/form-data":
                    assert [*validator.iter_errors(example)] == []  # pyright: ignore[reportUnknownMemberType]
                    checked += 1
    assert checked > len(ROUTES)


async def test_every_schema_is_one(document: Any):
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


async def test_every_reference_leads_somewhere(document: Any):
    for name in re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)):
        assert name in document["components"]["schemas"]


async def test_every_route_but_health_names_its_problems(document: Any):
    for method, path, operation in operations(document):
        if path in HEALTH:
            continue
        responses = operation["responses"]
        assert {"401", "503", "default"} <= responses.keys(), f"{method} {path}"
        assert "422" not in responses
        for status, response in responses.items():
            if not status.startswith("2"):
                assert list(response["content"]) == ["application/problem+json"]


async def test_what_is_sent_may_say_who_asks_either_way(document: Any):
    for method, path, operation in operations(document):
        if path not in HEALTH:
            names = {name for choice in operation["security"] for name in choice}
            assert names == {"Visitor", "Token"}, f"{method} {path}"


async def test_the_example_of_a_stream_reads_as_one():
    assert examples.STREAM.endswith("\n\n")
    for block in examples.STREAM.removesuffix("\n\n").split("\n\n"):
        event, data = block.split("\n")
        assert event.startswith("event: ")
        assert data.startswith("data: {")


async def test_it_is_served_without_a_page_that_loads_scripts(parley: Parley):
    for path in ("/docs", "/redoc"):
        assert (await parley.http.get(path)).status_code == 404
