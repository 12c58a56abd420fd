"""What a client may know of a reply that failed: a code, a sentence, whether to ask again."""

from typing import Any

from db.errors import DatabaseUnavailable
from rag.ports import (
    ContextTooLong,
    EmbedderUnavailable,
    IndexUnavailable,
    ModelError,
    ModelRefused,
    ModelTimeout,
)


def _shown(code: str, message: str, *, retryable: bool) -> dict[str, Any]:
    return {"code": code, "message": message, "retryable": retryable}


INTERNAL = _shown("INTERNAL", "Something went wrong on our side.", retryable=True)
REFUSED = _shown("MODEL_REFUSED", "The model declined to answer.", retryable=False)
TOO_LONG = _shown(
    "CONTEXT_TOO_LONG", "The conversation is longer than the model can read.", retryable=False
)
TIMEOUT = _shown("TIMEOUT", "The reply took too long.", retryable=True)
NO_MODEL = _shown("MODEL_UNAVAILABLE", "The model can't be reached.", retryable=True)
NO_RETRIEVAL = _shown(
    "RETRIEVAL_UNAVAILABLE", "The documents can't be searched at the moment.", retryable=True
)
NO_DATABASE = _shown(
    "RETRIEVAL_UNAVAILABLE",
    "What the reply is made of can't be read at the moment.",
    retryable=True,
)


def failure_shown(failure: BaseException) -> dict[str, Any]:
    """Translate what ended a reply into what its row says. Never quotes the exception."""
    match failure:
        case ModelRefused():
            return REFUSED
        case ContextTooLong():
            return TOO_LONG
        case ModelTimeout() | TimeoutError():
            return TIMEOUT
        case ModelError():
            return NO_MODEL
        case IndexUnavailable() | EmbedderUnavailable():
            return NO_RETRIEVAL
        case DatabaseUnavailable():
            return NO_DATABASE
        case _:
            return INTERNAL
