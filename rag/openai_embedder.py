"""The embedder behind any server that speaks OpenAI's embeddings API."""

from collections.abc import Sequence
from itertools import chain

import openai

from rag.openai_model import MAX_RETRIES, failure, openai_client
from rag.ports import EmbedderUnavailable

BATCH_SIZE = 128
"A request may hold 2,048 texts and 300,000 tokens; 128 chunks of 2,000 tokens stay below both."
SILENCE_SECONDS = 20.0
"A reader waits for the query's vector; a batch takes a few seconds at most."

DIMENSIONS = {
    "text-embedding-3-small": 1536,
    "text-embedding-3-large": 3072,
    "text-embedding-ada-002": 1536,
}


class OpenAIEmbedder:
    """An embedding model over HTTP."""

    def __init__(self, client: openai.AsyncOpenAI, model: str) -> None:
        self._client = client
        self._model = model
        self._dimension = DIMENSIONS.get(model)

    @classmethod
    def connect(
        cls,
        *,
        api_key: str,
        base_url: str | None,
        model: str,
        silence_seconds: float = SILENCE_SECONDS,
        max_retries: int = MAX_RETRIES,
    ) -> "OpenAIEmbedder":
        """Make an embedder from plain settings. No request is made yet."""
        client = openai_client(
            api_key, base_url, silence_seconds=silence_seconds, max_retries=max_retries
        )
        return cls(client, model)

    async def open(self) -> None:
        """Learn the dimension: known for OpenAI's models, else asked by embedding a word.

        Raises `EmbedderUnavailable`.
        """
        if self._dimension is None:
            [vector] = await self._embed(["dimension"])
            self._dimension = len(vector)

    @property
    def model(self) -> str:
        return self._model

    @property
    def dimension(self) -> int:
        if self._dimension is None:
            raise RuntimeError("The dimension is not known before open().")
        return self._dimension

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        batches = (texts[at : at + BATCH_SIZE] for at in range(0, len(texts), BATCH_SIZE))
        vectors = list(chain.from_iterable([await self._embed(batch) for batch in batches]))
        if any(len(vector) != self.dimension for vector in vectors):
            raise EmbedderUnavailable(f"{self._model} sent a vector of another dimension.")
        return vectors

    async def close(self) -> None:
        await self._client.close()

    async def _embed(self, texts: Sequence[str]) -> list[list[float]]:
        try:
            answer = await self._client.embeddings.create(model=self._model, input=list(texts))
            found = sorted((item.index, list(item.embedding)) for item in answer.data)
        except openai.APIError as error:
            raise EmbedderUnavailable(f"The embedding server failed: {failure(error)}.") from None
        except (ValueError, TypeError, AttributeError) as error:
            # The client raises ValueError for an answer without data, and checks nothing else.
            raise EmbedderUnavailable("The embedding server sent no embeddings.") from error
        if [index for index, _ in found] != list(range(len(texts))):
            raise EmbedderUnavailable("The embedding server did not send one vector for each text.")
        return [vector for _, vector in found]
