"""Documents that are known by a name: those that clients have sent before, and those we trust.

Automatic persisted queries are Apollo's protocol: a client sends a document's SHA-256, and its
text only if we don't know it. With trusted documents, nothing but what stands in the manifest
of the frontend's build is run.
"""

from collections import OrderedDict
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import orjson

from graphql_api.errors import ErrorCode
from graphql_api.payloads import Payload
from graphql_api.refusals import Refused
from graphql_api.settings import SettingsInvalid

REMEMBERED = 1_000
"Documents. A frontend has some hundred."
MAX_REMEMBERED_LENGTH = 20_000
"Characters of one document."


class PersistedDocuments:
    """Finds the text of what a client asks for by name. With `trusted`, only those run."""

    def __init__(self, trusted: Mapping[str, str] | None = None) -> None:
        self._trusted = trusted
        self._trusted_texts = frozenset((trusted or {}).values())
        self._trusted_by_hash = {_hashed(text): text for text in self._trusted_texts}
        self._remembered: OrderedDict[str, str] = OrderedDict()

    def text_of(self, payload: Payload) -> str:
        """Give the document that is asked for. Raises `Refused`."""
        hash = _hash_of(payload)
        if self._trusted is not None:
            return self._trusted_text(payload, hash)
        if payload.document_id is not None and payload.query is None:
            hash = _bare(payload.document_id)
        if hash is None:
            if payload.query is None:
                raise Refused(ErrorCode.BAD_USER_INPUT, "There is no query.", 400)
            return payload.query
        if payload.query:
            if _hashed(payload.query) != hash.lower():
                raise Refused(ErrorCode.BAD_USER_INPUT, "sha256Hash is not that of the query.", 400)
            return payload.query
        text = self._remembered.get(hash.lower())
        if text is None:
            raise _not_found()
        self._remembered.move_to_end(hash.lower())
        return text

    def remember(self, payload: Payload) -> None:
        """Keep a document that was sent with its hash, once it has proved to be valid."""
        hash, text = _hash_of(payload), payload.query
        if hash is None or not text or self._trusted is not None:
            return
        if len(text) <= MAX_REMEMBERED_LENGTH:
            self._remembered[hash.lower()] = text
            if len(self._remembered) > REMEMBERED:
                self._remembered.popitem(last=False)

    def _trusted_text(self, payload: Payload, hash: str | None) -> str:
        """Find a document of the manifest: by its id there, its hash, or its text."""
        assert self._trusted is not None
        for name in (payload.document_id, hash):
            if name is not None:
                found = self._trusted.get(name) or self._trusted_by_hash.get(_bare(name))
                if found is not None:
                    return found
        if payload.query in self._trusted_texts:
            return payload.query
        if payload.query is None and hash is not None:
            raise _not_found()
        raise Refused(ErrorCode.BAD_USER_INPUT, "Only documents of the manifest are run here.", 400)


def _hashed(text: str) -> str:
    return sha256(text.encode("utf-8", "replace")).hexdigest()


def _bare(hash: str) -> str:
    """Give a hash as we keep it, however it is written."""
    return hash.removeprefix("sha256:").lower()


def _not_found() -> Refused:
    # Apollo's clients look for just this text, and then send the document's own.
    return Refused(ErrorCode.PERSISTED_QUERY_NOT_FOUND, "PersistedQueryNotFound")


def _hash_of(payload: Payload) -> str | None:
    match payload.extensions.get("persistedQuery"):
        case None:
            return None
        case {"version": 1, "sha256Hash": str(hash)}:
            return hash
        case _:
            raise Refused(
                ErrorCode.BAD_USER_INPUT,
                "persistedQuery has version 1 and a sha256Hash.",
                400,
            )


def read_manifest(path: Path) -> dict[str, str]:
    """Read a manifest as Relay, Apollo and graphql-codegen write it. Raises `SettingsInvalid`."""
    try:
        data = orjson.loads(path.read_bytes())
    except OSError as error:
        raise SettingsInvalid(f"TRUSTED_DOCUMENTS: {path}: {error.strerror}") from error
    except ValueError as error:
        raise SettingsInvalid(f"TRUSTED_DOCUMENTS: {path} is no JSON") from error
    match data:
        case {"format": "apollo-persisted-query-manifest", "operations": [*operations]}:
            pairs = [(each.get("id"), each.get("body")) for each in _objects(operations)]
        case {"format": _}:
            pairs = []
        case {**documents}:
            pairs = list(documents.items())
        case _:
            pairs = []
    if not pairs or not all(isinstance(part, str) for pair in pairs for part in pair):
        raise SettingsInvalid(f"TRUSTED_DOCUMENTS: {path} does not map ids to documents")
    return cast("dict[str, str]", dict(pairs))


def _objects(items: list[Any]) -> list[dict[str, Any]]:
    return [each if isinstance(each, dict) else {} for each in items]
