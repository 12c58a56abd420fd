"""What the fields work with: the parts of a running Parley, put together once in `app.py`."""

from dataclasses import dataclass

from db.engine import Database
from rag.ingestion import Ingestion
from resolvers.documents import Library
from resolvers.intake import Intake
from resolvers.replies import Replies
from resolvers.runs import RunningReplies
from resolvers.turns import Turns
from resolvers.unsaved import UnsavedReplies


@dataclass(frozen=True, slots=True)
class Services:
    database: Database
    reads: Database
    turns: Turns
    replies: Replies
    unsaved: UnsavedReplies
    library: Library
    intake: Intake
    ingestion: Ingestion
    running: RunningReplies
