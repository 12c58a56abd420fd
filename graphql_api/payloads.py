"""What clients ask, read from bodies, query strings and socket messages, and checked for form.

Uploads follow the GraphQL multipart request specification.
"""

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NoReturn, cast

from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request

from graphql_api.errors import ErrorCode
from graphql_api.refusals import Refused
from graphql_api.request_bodies import (
    UTF_8,
    BodyLimits,
    content_type,
    malformed,
    read_body,
    read_form,
)

PREFLIGHT_HEADERS = ("GraphQL-Require-Preflight", "Apollo-Require-Preflight")
"""A page elsewhere can post a form without asking first, but not with a header of its own. Only
these two are asked for: others may be added by proxies to every request."""
MAX_JSON_DEPTH = 200
"Variables of ours nest a handful of levels."


@dataclass(frozen=True, slots=True)
class Payload:
    """What a client asks: a document or the id of one, and what goes with it."""

    query: str | None
    document_id: str | None
    variables: dict[str, Any]
    operation_name: str | None
    extensions: dict[str, Any]


@asynccontextmanager
async def payloads(request: Request, limits: BodyLimits) -> AsyncGenerator[Payload | list[Payload]]:
    """Read what a request asks; files that it brought are let go of at the end of the block.

    Raises `Refused`.
    """
    if request.method == "GET":
        yield _from_query(request.query_params)
        return
    kind, charset = content_type(request)
    if kind == "multipart/form-data":
        if not any(name in request.headers for name in PREFLIGHT_HEADERS):
            raise Refused(
                ErrorCode.BAD_USER_INPUT, f"A form needs the header {PREFLIGHT_HEADERS[0]}.", 400
            )
        async with read_form(request, limits) as form:
            yield _asked(_from_form(form), limits)
    elif kind == "application/json" and charset in UTF_8:
        yield _asked(parse_json(await read_body(request, limits)), limits)
    else:
        raise Refused(ErrorCode.BAD_USER_INPUT, "The body must be application/json, in UTF-8.", 415)


def parse_json(text: bytes | str) -> Any:
    """Read JSON as RFC 8259 has it. Raises `Refused`."""
    try:
        data = json.loads(
            text.decode() if isinstance(text, bytes) else text, parse_constant=_no_number
        )
    except (ValueError, RecursionError):
        raise malformed("The body is no JSON.") from None
    if _is_deeper(data, MAX_JSON_DEPTH):
        raise malformed(f"The JSON nests more than {MAX_JSON_DEPTH} levels.")
    return data


def read_payload(data: object) -> Payload:
    """Check the form of what is asked. Raises `Refused`."""
    if not isinstance(data, dict):
        raise malformed("A request is a JSON object.")
    given = cast("dict[str, Any]", data)
    ids = [given.get(name) for name in ("documentId", "id", "doc_id")]
    id = next((each for each in ids if each is not None), None)
    for name, value, kind in (
        ("query", given.get("query"), str),
        ("documentId", id, str),
        ("variables", given.get("variables"), dict),
        ("operationName", given.get("operationName"), str),
        ("extensions", given.get("extensions"), dict),
    ):
        if value is not None and not isinstance(value, kind):
            raise malformed(f"{name} is {'a string' if kind is str else 'an object'}, or null.")
    return Payload(
        query=given.get("query"),
        document_id=id,
        variables=given.get("variables") or {},
        operation_name=given.get("operationName") or None,  # an empty one is none
        extensions=given.get("extensions") or {},
    )


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _is_deeper(data: object, most: int) -> bool:
    level = [data]
    for _ in range(most):
        level = [
            child
            for each in level
            if isinstance(each, dict | list)
            for child in (
                cast("dict[str, object]", each).values()
                if isinstance(each, dict)
                else cast("list[object]", each)
            )
        ]
        if not level:
            return False
    return True


def _from_query(parameters: Mapping[str, str]) -> Payload:
    """Read a GET request, whose variables and extensions are JSON in strings."""
    data: dict[str, Any] = dict(parameters)
    for name in ("variables", "extensions"):
        if name in data:
            data[name] = parse_json(data[name]) if data[name] else None
    return read_payload(data)


def _asked(data: object, limits: BodyLimits) -> Payload | list[Payload]:
    """Check the form of a request, which may be a batch."""
    if not isinstance(data, list):
        return read_payload(data)
    batch = cast("list[object]", data)
    if limits.operations <= 1:
        raise malformed("Batches are not taken here. A request is a JSON object.")
    if not 0 < len(batch) <= limits.operations:
        raise malformed(f"A batch has from 1 to {limits.operations} operations.")
    return [read_payload(each) for each in batch]


def _from_form(form: FormData) -> object:
    """Read what a form asks, its files put where they belong."""
    files = {name: part for name, part in form.multi_items() if isinstance(part, UploadFile)}
    operations, places = form.get("operations"), form.get("map")
    if not isinstance(operations, str) or not isinstance(places, str):
        raise malformed("The form needs the fields operations and map.")
    data = parse_json(operations)
    _put_files(data, parse_json(places), files)
    return data


def _put_files(operations: object, places: object, files: Mapping[str, UploadFile]) -> None:
    """Put each file where the map says, in place of a null. Raises `Refused`."""
    if not isinstance(places, dict):
        raise malformed("map is an object.")
    for name, paths in cast("dict[str, object]", places).items():
        if name not in files:
            raise malformed(f"The file {name} of the map is missing.")
        if not isinstance(paths, list):
            raise malformed("The map gives a list of paths for each file.")
        for path in cast("list[object]", paths):
            if not isinstance(path, str):
                raise malformed("A path is a string.")
            _put(operations, path.split("."), files[name])


def _put(operations: object, path: list[str], file: UploadFile) -> None:
    place: Any = operations
    for step in path[:-1]:
        place = _child(place, step)
    last = path[-1]
    if _child(place, last) is not None:
        raise malformed("A path of the map leads to something else than null.")
    place[int(last) if isinstance(place, list) else last] = file


def _child(place: Any, step: str) -> Any:
    if isinstance(place, dict) and step in place:
        return cast("dict[str, Any]", place)[step]
    if isinstance(place, list) and step.isdecimal() and len(step) < 4:
        items = cast("list[Any]", place)
        if int(step) < len(items):
            return items[int(step)]
    raise malformed("A path of the map leads nowhere.")
