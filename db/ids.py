"""The ids of stored things.

Every id is a UUID, of version 7 where the server makes it, so that rows made one after
another stand one after another in their indexes. Each kind has a type of its own, so
that a session's id can't be passed where a message's is expected.
"""

from typing import NewType
from uuid import UUID

from uuid_utils.compat import uuid7

UserId = NewType("UserId", UUID)
SessionId = NewType("SessionId", UUID)
MessageId = NewType("MessageId", UUID)
DocumentId = NewType("DocumentId", UUID)
ChunkId = NewType("ChunkId", UUID)
RunId = NewType("RunId", UUID)
"Fences a job: who holds the row's present `run_id` may write to it, everyone else may not."


def new_id() -> UUID:
    """Make a UUID of version 7 (RFC 9562)."""
    return uuid7()
