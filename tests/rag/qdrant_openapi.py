"""Checks requests against Qdrant's own OpenAPI file, made strict.

As published it lets nearly everything pass: unknown fields, and with `{"nullable": true}`
among the choices of an `anyOf` any value at all. Here an object with properties allows no
others (the file has no `allOf`, with which that would be wrong), and `nullable` allows null only.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from jsonschema import Draft202012Validator, ValidationError
from referencing import Registry
from referencing.jsonschema import DRAFT202012

FILE = Path(__file__).parents[3] / "shared" / "data" / "qdrant-openapi-1.19.json"

_URI = "urn:qdrant"


class QdrantApi:
    """The API as the file tells it. Every check raises `ValidationError`."""

    def __init__(self, file: Path = FILE) -> None:
        text = file.read_text().replace('"#/components/', f'"{_URI}#/components/')
        self._document = cast("dict[str, Any]", hardened(json.loads(text)))
        resource = DRAFT202012.create_resource(self._document)
        self._registry = Registry[Any]().with_resource(_URI, resource).crawl()

    def check_request(
        self, method: str, path: str, query: Mapping[str, str], body: object | None
    ) -> None:
        operation = self._operation(method, path)
        parameters = {p["name"]: p for p in operation.get("parameters", []) if p["in"] == "query"}
        for name, value in query.items():
            if name not in parameters:
                raise ValidationError(f"{method} {path} takes no parameter {name!r}")
            self._check(parameters[name]["schema"], _parsed(value))
        if missing := {n for n, p in parameters.items() if p.get("required")} - set(query):
            raise ValidationError(f"{method} {path} lacks {missing}")
        if "requestBody" in operation:
            self._check(_schema_of(operation["requestBody"]), body)
        elif body is not None:
            raise ValidationError(f"{method} {path} takes no body")

    def check_response(self, method: str, path: str, body: object) -> None:
        """Check the answer to a request that went well."""
        self._check(_schema_of(self._operation(method, path)["responses"]["200"]), body)

    def _operation(self, method: str, path: str) -> dict[str, Any]:
        for template, operations in self._document["paths"].items():
            pattern = re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(template))
            if re.fullmatch(pattern, path) and method.lower() in operations:
                return operations[method.lower()]
        raise ValidationError(f"there is no {method} {path}")

    def _check(self, schema: dict[str, Any], value: object) -> None:
        validator = Draft202012Validator(schema, registry=self._registry)
        validator.validate(value)  # pyright: ignore[reportUnknownMemberType]


def hardened(node: object) -> object:
    """Copy a part of the file, with strict objects, and `nullable` said as JSON Schema does."""
    if isinstance(node, list):
        return [hardened(item) for item in cast("list[object]", node)]
    if not isinstance(node, dict):
        return node
    schema = {key: hardened(value) for key, value in cast("dict[str, object]", node).items()}
    if schema.get("type") == "object" and "properties" in schema:
        schema.setdefault("additionalProperties", False)
    # A property may itself be called `nullable`: then it is a schema, not true.
    if schema.get("nullable") is not True:
        return schema
    del schema["nullable"]
    null = {"type": "null"}
    return {"anyOf": [schema, null]} if schema else null


def _schema_of(content: dict[str, Any]) -> dict[str, Any]:
    return content["content"]["application/json"]["schema"]


def _parsed(value: str) -> object:
    """Read a query parameter as the number or truth value that it may be."""
    try:
        return json.loads(value)
    except ValueError:
        return value
