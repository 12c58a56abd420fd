"""Request bodies, counted while they are read and refused as soon as they are too large.

Files of a form go to disk as they come.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import FormData
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from graphql_api.errors import ErrorCode
from graphql_api.refusals import Refused

UTF_8 = frozenset({"utf-8", "utf8", "us-ascii"})
"What text is taken in, as charsets are named."
MAX_FILES = 20


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """How large bodies may be, and how many operations may stand in one (1: no batches)."""

    body_bytes: int
    upload_bytes: int
    operations: int


def content_type(request: Request) -> tuple[str, str]:
    """Give a body's media type and its charset, by default UTF-8."""
    header = request.headers.get("content-type", "")
    kind, *parameters = (part.strip().lower() for part in header.split(";"))
    values = {key: value for key, _, value in (each.partition("=") for each in parameters)}
    return kind, values.get("charset", "utf-8").strip('"')


async def read_body(request: Request, limits: BodyLimits) -> bytes:
    """Read a body that is no form. Raises `Refused`."""
    return b"".join([piece async for piece in _bounded(request, limits.body_bytes)])


@asynccontextmanager
async def read_form(
    request: Request, limits: BodyLimits, *, max_files: int = MAX_FILES
) -> AsyncGenerator[FormData]:
    """Read a form; its files are let go of at the end of the block. Raises `Refused`."""
    if content_type(request)[1] not in UTF_8:
        raise Refused(ErrorCode.BAD_USER_INPUT, "A form must be in UTF-8.", 415)
    body = _bounded(request, limits.upload_bytes + limits.body_bytes)
    parser = _Parser(
        request.headers,
        body,
        max_files=max_files,
        max_fields=MAX_FILES,
        max_part_size=limits.body_bytes,
    )
    parser.max_file_size = limits.upload_bytes
    try:
        form = await parser.parse()
    except _FileTooLarge:
        raise _too_large("A file", limits.upload_bytes) from None
    except MultiPartException as error:
        if "maximum size" in error.message:
            raise _too_large("A field of the form", limits.body_bytes) from None
        raise malformed("The form can't be read.") from None
    except (KeyError, ValueError, AssertionError):
        raise malformed("The form can't be read.") from None
    try:
        yield form
    finally:
        await form.close()


def malformed(message: str) -> Refused:
    """Refuse a body that is not of the form that it should have."""
    return Refused(ErrorCode.BAD_USER_INPUT, message, 400)


class _FileTooLarge(MultiPartException):
    """A file has more bytes than may be uploaded."""


class _Parser(MultiPartParser):
    """Starlette's, that counts the bytes of each file, and takes text for what it says it is.

    Starlette's own reads on to the end of a file of any size, and bad UTF-8 as Latin-1.
    """

    max_file_size: int
    _file_size = 0

    def on_part_begin(self) -> None:
        super().on_part_begin()
        self._file_size = 0

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._current_part.file is not None:
            self._file_size += end - start
            if self._file_size > self.max_file_size:
                raise _FileTooLarge("a file is too large")
        super().on_part_data(data, start, end)

    def on_part_end(self) -> None:
        part: Any = self._current_part
        if part.file is None:
            self.items.append((part.field_name, part.data.decode()))
        else:
            super().on_part_end()


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


def _too_large(what: str, most: int) -> Refused:
    return Refused(ErrorCode.BAD_USER_INPUT, f"{what} is larger than {most:,} bytes.", 413)
