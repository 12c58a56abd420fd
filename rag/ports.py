"""What the agent asks of the outside world: a chat model, an embedder, a vector index.

Each port is a Protocol with plain data beside it. Adapters translate the exceptions of
their libraries into the errors below, once, and nothing else crosses the line:

    PortError
    ├── ModelError
    │   ├── ModelUnavailable    the network, a rate limit, a broken or silent stream
    │   ├── ModelRefused        a content filter or a refusal
    │   ├── ContextTooLong      the prompt does not fit
    │   └── ModelTimeout        nothing came for too long
    ├── EmbedderUnavailable
    └── IndexUnavailable        the vector store is away
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from db.ids import ChunkId, DocumentId, UserId
from db.viewer import Viewer


class PortError(Exception):
    """What lies outside did not do what was asked of it."""


class ModelError(PortError):
    """The model did not give a whole reply."""


class ModelUnavailable(ModelError):
    """The model could not be reached, or broke off."""


class ModelRefused(ModelError):
    """The model declined to answer."""


class ContextTooLong(ModelError):
    """The conversation is longer than the model can read."""


class ModelTimeout(ModelError):
    """The model took too long."""


class EmbedderUnavailable(PortError):
    """The embedding model could not be reached."""


class IndexUnavailable(PortError):
    """The vector store could not be reached."""


# --- the model ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a document that a search found, as its viewer may read it.

    `score` is the index's own; higher is better, and scores of two searches don't compare.
    """

    chunk_id: ChunkId
    document_id: DocumentId
    title: str
    source_url: str | None
    heading: str | None
    page: int | None
    content: str
    score: float


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The model asks for a tool. `arguments` is the JSON text as the model wrote it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class SystemTurn:
    """Instructions."""

    content: str


@dataclass(frozen=True, slots=True)
class UserTurn:
    """What the person said. `content` is what a language model reads, all of it.

    `question` is what the person typed, alone, and `selection` the text they had selected.
    """

    content: str
    question: str
    selection: str | None = None


@dataclass(frozen=True, slots=True)
class AssistantTurn:
    """What the model said earlier, in this reply or in one before it."""

    content: str
    tool_calls: Sequence[ToolCall] = ()


@dataclass(frozen=True, slots=True)
class ToolTurn:
    """What a tool answered. `content` is for a language model.

    `passages` holds the same by marker (1-based, the n of `[n]`), for adapters that need no prose.
    """

    call_id: str
    content: str
    passages: Mapping[int, Passage] = field(default_factory=dict[int, Passage])


Turn = SystemTurn | UserTurn | AssistantTurn | ToolTurn


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call. `parameters` is a JSON Schema object."""

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TextPiece:
    """Some more of the model's text, never empty."""

    text: str


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that one call to the model took, as its provider counts them."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class Finished:
    """The model's turn is whole. Always the last event of a stream, and the only good end."""

    reason: Literal["stop", "length", "tool_calls"]


ModelEvent = TextPiece | ToolCall | Usage | Finished


class ChatModel(Protocol):
    """A language model that streams."""

    @property
    def name(self) -> str:
        """What the replies' `model` says."""
        ...

    def stream(self, turns: Sequence[Turn], tools: Sequence[Tool]) -> AsyncGenerator[ModelEvent]:
        """Answer the conversation: text as it comes, tool calls when whole, then `Finished`.

        Raises `ModelError` where it can't; a stream that ends without `Finished` is such an error.
        Closing the generator ends the call.
        """
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


# --- the embedder ---------------------------------------------------------------------


class Embedder(Protocol):
    """Turns text into dense vectors of `dimension` floats."""

    async def open(self) -> None:
        """Learn the dimension, before which it can't be asked for. Raises `EmbedderUnavailable`."""
        ...

    @property
    def model(self) -> str: ...

    @property
    def dimension(self) -> int: ...

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Embed texts, one vector each, in their order. Raises `EmbedderUnavailable`."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


# --- the vector index -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class IndexedChunk:
    """A chunk as the index takes it: what is searched, and whose it is.

    `owner_id` null is shared by all. `vector` is null without an embedder.
    """

    chunk_id: ChunkId
    document_id: DocumentId
    owner_id: UserId | None
    title: str
    source_url: str | None
    heading: str | None
    page: int | None
    content: str
    vector: Sequence[float] | None


@dataclass(frozen=True, slots=True)
class Hit:
    """A found chunk, best first in its list."""

    chunk_id: ChunkId
    score: float


@dataclass(frozen=True, slots=True)
class Holding:
    """What the index holds of one document."""

    owner_id: UserId | None
    chunk_count: int


class VectorIndex(Protocol):
    """A cache of the chunks that Postgres holds, searchable by text and, if given, by vector.

    Every method raises `IndexUnavailable` where the store is away. All are idempotent.
    """

    async def open(self) -> None:
        """Make the store ready: create what is missing."""
        ...

    async def put(self, chunks: Sequence[IndexedChunk]) -> None:
        """Add chunks, or replace those of the same id; findable when this returns."""
        ...

    async def remove(self, document_id: DocumentId) -> None:
        """Forget every chunk of a document."""
        ...

    async def set_owner(self, document_id: DocumentId, owner_id: UserId | None) -> None:
        """Change who may find a document's chunks."""
        ...

    async def search(
        self,
        viewer: Viewer,
        query: str,
        vector: Sequence[float] | None,
        *,
        limit: int,
        document_ids: Sequence[DocumentId] | None = None,
    ) -> list[Hit]:
        """Find what the viewer may read (their own and shared documents), best first.

        The filter by viewer is built in here, from the viewer alone. `document_ids` narrows
        it further, never widens it. With a vector, the two rankings are fused by reciprocal rank.
        """
        ...

    async def search_shared(
        self, query: str, vector: Sequence[float] | None, *, limit: int
    ) -> list[Passage]:
        """Find what is shared by all, best first, as the index itself holds it.

        For when Postgres is away: a passage may be older than its document is by now. Nobody's
        own passages are among them.
        """
        ...

    async def holdings(self) -> dict[DocumentId, Holding]:
        """Say what is there, so that a start can fill in what is lacking and drop what is gone."""
        ...

    async def close(self) -> None:
        """Write what is pending and let go."""
        ...
