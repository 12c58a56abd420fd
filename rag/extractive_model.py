"""A chat model without a language model: it quotes the passages that fit best.

What a fresh installation answers with. It says that it is no language model, searches once,
and quotes; it never makes a sentence of its own about the subject.
"""

import json
import re
from collections.abc import AsyncGenerator, Sequence
from itertools import accumulate, takewhile
from typing import cast

from rag.citations import shortened
from rag.ports import (
    Finished,
    ModelEvent,
    Passage,
    TextPiece,
    Tool,
    ToolCall,
    ToolTurn,
    Turn,
    UserTurn,
)

MAX_QUOTES = 3
QUOTE_CHARS = 400
"About three sentences; three such quotes still fit on a screen."

BEST_PASSAGES = "No language model is configured; these are the passages that match best."
NOTHING_FITS = (
    "No language model is configured, and no passage in the documents matches this question."
)

_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W_\u3040-\u30ff\u3400-\u9fff]+")
"A word, or one character of the scripts that put no spaces between words."
_ENDING = re.compile(r"(?<=\w{3})(?:ies|ing|es|ed|e|s|y)$")
_COMMON = frozenset(
    "a about after all also an and any are as at be because been but by can could did do does for "
    "from get give had has have he her him his how i if in into is it its just like make many may "
    "me more most much my no not of on one only or our out over please say she should so some tell "
    "than that the their them then there these they this those to too under up us use used using "
    "very was we were what when where which while who whom whose why will with would you your "
    "mean means explain".split()
)


class ExtractiveModel:
    """Searches with the question as it was asked, then quotes up to three passages."""

    name = "extractive"

    async def stream(
        self, turns: Sequence[Turn], tools: Sequence[Tool]
    ) -> AsyncGenerator[ModelEvent]:
        asked = max(n for n, turn in enumerate(turns) if isinstance(turn, UserTurn))
        query = _query(cast("UserTurn", turns[asked]))
        results = [turn for turn in turns[asked:] if isinstance(turn, ToolTurn)]
        if tools and not results:
            yield ToolCall("search", tools[0].name, json.dumps({"query": query}))
            yield Finished("tool_calls")
            return
        passages = {marker: found for turn in results for marker, found in turn.passages.items()}
        for piece in re.findall(r"\S+\s*", _answer(query, passages)):
            yield TextPiece(piece)
        yield Finished("stop")

    async def close(self) -> None:
        pass


def _query(turn: UserTurn) -> str:
    """Add what the reader had selected: "what does this mean?" alone finds nothing."""
    return " ".join(f"{turn.question} {turn.selection or ''}".split())


def _answer(query: str, passages: dict[int, Passage]) -> str:
    wanted = _stems(query)
    fitting = [
        f"**{_escaped(passage.title)}** [{marker}]\n\n> {_escaped(_best_part(passage, wanted))}"
        for marker, passage in sorted(passages.items())
        if not wanted or wanted & _stems(f"{passage.title} {passage.content}")
    ]
    return "\n\n".join([BEST_PASSAGES, *fitting[:MAX_QUOTES]]) if fitting else NOTHING_FITS


def _best_part(passage: Passage, wanted: set[str]) -> str:
    """Choose the sentences in a row that hold most of the wanted words, the earliest of equals."""
    sentences = re.split(r"(?<=[.!?])\s+|(?<=[。！？])|\n\s*\n", passage.content.strip())  # noqa: RUF001
    sentences = [" ".join(sentence.split()) for sentence in sentences if sentence]
    parts = [
        max(
            takewhile(_fits, accumulate(sentences[start:], "{} {}".format)),
            default=shortened(sentences[start], QUOTE_CHARS),
            key=len,
        )
        for start in range(len(sentences))
    ]
    return max(parts, key=lambda part: len(wanted & _stems(part)), default="")


def _fits(part: str) -> bool:
    return len(part) <= QUOTE_CHARS


def _stems(text: str) -> set[str]:
    """Reduce words to what they share with their other forms (roughly, and in English only)."""
    words = (word.lower() for word in _WORD.findall(text))
    return {_ENDING.sub("", word) for word in words if word not in _COMMON}


def _escaped(text: str) -> str:
    """Keep a document's own brackets from reading as markers, and its backticks as code."""
    return re.sub(r"[\[\]`~\\]", r"\\\g<0>", text)
