"""The schema is one that clients can learn from, and holds what it promised them."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from graphql import (
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLScalarType,
    GraphQLType,
    GraphQLUnionType,
    build_schema,
    find_breaking_changes,
    get_named_type,
    is_introspection_type,
    is_specified_directive,
    is_specified_scalar_type,
)

from graphql_api.schema import printed_schema

ROOT = Path(__file__).parent.parent
CONTRACT = build_schema((ROOT / "tests" / "contract.graphql").read_text())
SCHEMA = build_schema((ROOT / "schema.graphql").read_text())
TYPES = [
    each
    for each in SCHEMA.type_map.values()
    if not is_introspection_type(each) and not is_specified_scalar_type(each)
]
UNUSED = {"ErrorCode"}
"What no field leads to: the codes are in `extensions` of errors, for clients to generate types of."


def described() -> Iterator[tuple[str, str | None]]:
    """Give everything that has a name, and what is said of it."""
    for directive in SCHEMA.directives:
        if not is_specified_directive(directive):
            yield f"@{directive.name}", directive.description
    for each in TYPES:
        yield each.name, each.description
        parts: dict[str, Any] = getattr(each, "fields", None) or getattr(each, "values", {})
        for name, part in parts.items():
            yield f"{each.name}.{name}", part.description
            for argument, value in getattr(part, "args", {}).items():
                yield f"{each.name}.{name}({argument})", value.description


DESCRIPTIONS = dict(described())


def used() -> set[str]:
    """Give the names of the types of all fields and arguments."""
    found: list[GraphQLType] = []
    for each in TYPES:
        if isinstance(each, GraphQLInputObjectType):
            found += [field.type for field in each.fields.values()]
        elif isinstance(each, GraphQLObjectType | GraphQLInterfaceType):
            for field in each.fields.values():
                found += [field.type, *(value.type for value in field.args.values())]
    return {get_named_type(each).name for each in found}


def words(text: str) -> list[str]:
    """Give the words of a name or a sentence, without articles."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])|_", " ", text).lower()
    return [word for word in re.findall(r"\w+", apart) if word not in {"a", "an", "the"}]


def test_schema_graphql_is_what_is_served():
    assert (ROOT / "schema.graphql").read_text() == printed_schema()


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_it_is_described_by_a_sentence(name: str):
    description = DESCRIPTIONS[name]
    assert description
    assert description.endswith(".")
    assert words(description) != words(re.split(r"[.(]", name.rstrip(")"))[-1])


@pytest.mark.parametrize("scalar", [each for each in TYPES if isinstance(each, GraphQLScalarType)])
def test_a_scalar_says_what_it_follows(scalar: GraphQLScalarType):
    assert (scalar.specified_by_url or "").startswith("https://")


def test_every_enum_and_union_is_in_use():
    kinds = (GraphQLEnumType, GraphQLUnionType)
    assert {each.name for each in TYPES if isinstance(each, kinds)} - used() == UNUSED


def test_what_may_be_left_out_has_no_default_of_null():
    assert "= null" not in printed_schema()


def test_it_has_all_that_clients_rely_on():
    assert find_breaking_changes(CONTRACT, SCHEMA) == []
