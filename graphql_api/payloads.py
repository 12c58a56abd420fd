"""What clients ask, read from bodies, query strings and socket messages, and checked for form.

A body is counted while it is read, and refused as soon as it is too large. Uploads follow the
GraphQL multipart request specification, and go to disk as they come.
"""

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NoReturn, cast

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from graphql_api.errors import ErrorCode
from graphql_api.refusals import Refused

PREFLIGHT_HEADERS = ("GraphQL-Require-Preflight", "Apollo-Require-Preflight")
"""A page elsewhere can post a form without asking first, but not with a header of its own. Only
these two are asked for: others may be added by proxies to every request."""
MAX_FILES = 20
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


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """How large bodies may be, and how many operations may stand in one (1: no batches)."""

    body_bytes: int
    upload_bytes: int
    operations: int


@asynccontextmanager
async def payloads(request: Request, limits: BodyLimits) -> AsyncGenerator[Payload | list[Payload]]:
    """Read what a request asks; files that it brought are let go of at the end of the block.

    Raises `Refused`.
    """
    if request.method == "GET":
        yield _from_query(request.query_params)
        return
    kind, charset = _content_type(request.headers.get("content-type", ""))
    if kind == "multipart/form-data":
        if not any(name in request.headers for name in PREFLIGHT_HEADERS):
            raise Refused(
                ErrorCode.BAD_USER_INPUT, f"A form needs the header {PREFLIGHT_HEADERS[0]}.", 400
            )
        async with _form(request, limits) as payload:
            yield payload
    elif kind == "application/json" and charset in ("utf-8", "utf8", "us-ascii"):
        pieces = [piece async for piece in _bounded(request, limits.body_bytes)]
        data = parse_json(b"".join(pieces))
        is_batch = isinstance(data, list)
        yield _batch(cast("list[object]", data), limits) if is_batch else read_payload(data)
    else:
        raise Refused(ErrorCode.BAD_USER_INPUT, "The body must be application/json, in UTF-8.", 415)


def parse_json(text: bytes | str) -> Any:
    """Read JSON as RFC 8259 has it. Raises `Refused`."""
    try:
        data = json.loads(
            text.decode() if isinstance(text, bytes) else text, parse_constant=_no_number
        )
    except (ValueError, RecursionError):
        raise _malformed("The body is no JSON.") from None
    if _is_deeper(data, MAX_JSON_DEPTH):
        raise _malformed(f"The JSON nests more than {MAX_JSON_DEPTH} levels.")
    return data


def read_payload(data: object) -> Payload:
    """Check the form of what is asked. Raises `Refused`."""
    if not isinstance(data, dict):
        raise _malformed("A request is a JSON object.")
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
            raise _malformed(f"{name} is {'a string' if kind is str else 'an object'}, or null.")
    return Payload(
        query=given.get("query"),
        document_id=id,
        variables=given.get("variables") or {},
        operation_name=given.get("operationName"),
        extensions=given.get("extensions") or {},
    )


def _malformed(message: str) -> Refused:
    return Refused(ErrorCode.BAD_USER_INPUT, message, 400)


def _too_large(what: str, most: int) -> Refused:
    return Refused(ErrorCode.BAD_USER_INPUT, f"{what} is larger than {most:,} bytes.", 413)


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


def _batch(data: list[object], limits: BodyLimits) -> list[Payload]:
    if limits.operations <= 1:
        raise _malformed("Batches are not taken here. A request is a JSON object.")
    if not 0 < len(data) <= limits.operations:
        raise _malformed(f"A batch has from 1 to {limits.operations} operations.")
    return [read_payload(each) for each in data]


def _content_type(header: str) -> tuple[str, str]:
    """Give the media type and its charset, by default UTF-8."""
    kind, *parameters = (part.strip().lower() for part in header.split(";"))
    values = {key: value for key, _, value in (each.partition("=") for each in parameters)}
    return kind, values.get("charset", "utf-8").strip('"')


async def _bounded(request: Request, most: int) -> AsyncGenerator[bytes]:
    """Pass a body on as it comes. Raises `Refused` as soon as it is too large."""
    too_large = _too_large("The body", most)
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > most:
        raise too_large
    size = 0
    async for piece in request.stream():
        size += len(piece)
        if size > most:
            raise too_large
        yield piece


@asynccontextmanager
async def _form(request: Request, limits: BodyLimits) -> AsyncGenerator[Payload]:
    body = _bounded(request, limits.upload_bytes + limits.body_bytes)
    parser = MultiPartParser(
        request.headers,
        body,
        max_files=MAX_FILES,
        max_fields=MAX_FILES,
        max_part_size=limits.body_bytes,
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if "maximum size" in error.message:
            raise _too_large("A field of the form", limits.body_bytes) from None
        raise _malformed("The form can't be read.") from None
    except (KeyError, ValueError, AssertionError):
        raise _malformed("The form can't be read.") from None
    try:
        files = {name: part for name, part in form.multi_items() if isinstance(part, UploadFile)}
        for file in files.values():
            if (file.size or 0) > limits.upload_bytes:
                raise _too_large("A file", limits.upload_bytes)
        operations, places = form.get("operations"), form.get("map")
        if not isinstance(operations, str) or not isinstance(places, str):
            raise _malformed("The form needs the fields operations and map.")
        data = parse_json(operations)
        _put_files(data, parse_json(places), files)
        yield read_payload(data)
    finally:
        await form.close()


def _put_files(operations: object, places: object, files: Mapping[str, UploadFile]) -> None:
    """Put each file where the map says, in place of a null. Raises `Refused`."""
    if not isinstance(places, dict):
        raise _malformed("map is an object.")
    for name, paths in cast("dict[str, object]", places).items():
        if name not in files:
            raise _malformed(f"The file {name} of the map is missing.")
        if not isinstance(paths, list):
            raise _malformed("The map gives a list of paths for each file.")
        for path in cast("list[object]", paths):
            if not isinstance(path, str):
                raise _malformed("A path is a string.")
            _put(operations, path.split("."), files[name])


def _put(operations: object, path: list[str], file: UploadFile) -> None:
    place: Any = operations
    for step in path[:-1]:
        place = _child(place, step)
    last = path[-1]
    if _child(place, last) is not None:
        raise _malformed("A path of the map leads to something else than null.")
    place[int(last) if isinstance(place, list) else last] = file


def _child(place: Any, step: str) -> Any:
    if isinstance(place, dict) and step in place:
        return cast("dict[str, Any]", place)[step]
    if isinstance(place, list) and step.isdecimal() and len(step) < 4:
        items = cast("list[Any]", place)
        if int(step) < len(items):
            return items[int(step)]
    raise _malformed("A path of the map leads nowhere.")
