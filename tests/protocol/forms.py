"""Forms: requests that bring files (the GraphQL multipart request specification)."""

import json
from collections.abc import Mapping
from typing import NamedTuple

BOUNDARY = "parting"
PREFLIGHT = {"GraphQL-Require-Preflight": "1"}
"What makes browsers ask first whether a page of another origin may send this."
UPLOAD = """mutation ($file: Upload!, $title: String) {
  addDocument(input: {source: {file: $file}, title: $title}) { __typename }
}"""
OPERATIONS = json.dumps({"query": UPLOAD, "variables": {"file": None, "title": "x"}})
MAP = '{"0": ["variables.file"]}'
ADDED = {"data": {"addDocument": {"__typename": "AddDocumentSuccess"}}}


def part(name: str, content: bytes | str, filename: str | None = None) -> bytes:
    data = content.encode() if isinstance(content, str) else content
    described = f'; filename="{filename}"\r\nContent-Type: text/plain' if filename else ""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{described}\r\n\r\n'
    return head.encode() + data + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


GIVEN = part("operations", OPERATIONS)
MAPPED = part("map", MAP)
FILE = part("0", "A lease is a promise.", "lease.txt")
WHOLE = form(GIVEN, MAPPED, FILE)


class Form(NamedTuple):
    """What is sent."""

    name: str
    body: bytes = WHOLE
    content_type: str = f"multipart/form-data; boundary={BOUNDARY}"
    guard: Mapping[str, str] = PREFLIGHT

    @property
    def headers(self) -> dict[str, str]:
        return {"Content-Type": self.content_type, **self.guard}
