"""Taking documents in: from a web address, a text or a file to bytes that are stored.

The bytes are stored before anyone is told that they were taken; reading them comes after.
"""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple

from db import audit, documents, users
from db.audit import Action, Entity
from db.documents import DocumentRow, NewDocument
from db.engine import Database, Transaction
from db.ids import DocumentId
from db.viewer import Viewer
from rag.extraction import SUPPORTED, media_type
from rag.fetching import Fetcher, FetchError
from rag.ingestion import default_title
from resolvers.errors import InvalidInput
from resolvers.inputs import check_optional_text, check_text
from resolvers.quotas import NoQuotas, Quota, Quotas, Take, taking

MAX_URL_LENGTH = 2_000
"Characters; what browsers and servers agree to carry."


@dataclass(frozen=True, slots=True)
class UrlSource:
    url: str


@dataclass(frozen=True, slots=True)
class TextSource:
    text: str


@dataclass(frozen=True, slots=True)
class FileSource:
    data: bytes
    filename: str | None
    declared_type: str | None = None


Source = UrlSource | TextSource | FileSource


class Added(NamedTuple):
    """A document, and whether it has to be read (false: the same bytes were there already)."""

    document: DocumentRow
    is_new: bool


class Intake:
    """Stores documents, and passes on the id of each that has to be read."""

    def __init__(
        self,
        database: Database,
        fetcher: Fetcher,
        take_up: Callable[[DocumentId], object],
        quotas: Quotas,
        *,
        max_bytes: int,
    ) -> None:
        self._database = database
        self._fetcher = fetcher
        self._take_up = take_up
        self._max_bytes = max_bytes
        self._quotas = quotas

    async def add(
        self, viewer: Viewer, source: Source, *, title: str | None, shared: bool, request_id: str
    ) -> Added:
        """Store a document and begin to read it; the same bytes again are the same document.

        Raises `InvalidInput`, `QuotaExceeded`. What is there already costs nothing of the quota.
        """
        check_optional_text(title, "title")
        if shared and not viewer.is_admin:
            raise InvalidInput("Only administrators share documents with everyone.", "visibility")
        new = await self._described(source, title)
        added = await self._store(viewer, new, shared=shared, request_id=request_id)
        if added.is_new:
            self._take_up(added.document.id)
        return added

    def without_quotas(self) -> "Intake":
        """Give the same for whoever runs the server, whose documents are counted as nobody's."""
        unmetered = copy(self)
        unmetered._quotas = NoQuotas()
        return unmetered

    async def _store(
        self, viewer: Viewer, new: NewDocument, *, shared: bool, request_id: str
    ) -> Added:
        async def store(transaction: Transaction, pay: Take) -> Added:
            await users.ensure_user(viewer, transaction)
            row, is_new = await documents.add_document(viewer, transaction, new, shared=shared)
            if is_new:
                await pay()
                detail = {"checksum": row.checksum, "shared": shared}
                await audit.record(
                    viewer, transaction, Action.CREATE, Entity.DOCUMENT, row.id, detail, request_id
                )
            return Added(row, is_new)

        async with taking(self._quotas, viewer, Quota.ADD_DOCUMENT) as pay:
            return await self._database.transact(lambda transaction: store(transaction, pay))

    async def _described(self, source: Source, title: str | None) -> NewDocument:
        """Get hold of a source's bytes and say what they are. Raises `InvalidInput`."""
        url = filename = declared = None
        match source:
            case UrlSource(url):
                field = "source.url"
                check_text(url, field, at_most=MAX_URL_LENGTH)
                try:
                    fetched = await self._fetcher.fetch(url)
                except FetchError as error:
                    raise InvalidInput(str(error), field) from error
                data, filename, declared = fetched.data, fetched.filename, fetched.mime_type
            case TextSource(text):
                field = "source.text"
                data = check_text(text, field, at_most=self._max_bytes).encode()
                declared = "text/markdown"
            case FileSource(data, filename, declared):
                field = "source.file"
                check_optional_text(filename, field)
        if not data:
            raise InvalidInput("It is empty.", field)
        if len(data) > self._max_bytes:
            raise InvalidInput(f"It is larger than {self._max_bytes:,} bytes.", field)
        mime_type = media_type(data, filename, declared)
        if mime_type not in SUPPORTED:
            raise InvalidInput(
                "Markdown, plain text, HTML, PDF and DOCX can be read; this is none of them.", field
            )
        if title is None and isinstance(source, TextSource):
            title = _first_line(source.text)
        return NewDocument(
            title=title or default_title(filename, url),
            source_url=url,
            original_filename=filename,
            mime_type=mime_type,
            checksum=sha256(data).hexdigest(),
            data=data,
        )


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0].lstrip("# ").strip()[:80] or "Untitled"
