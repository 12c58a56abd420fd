"""What the follower of a reply is told, in this order.

Rejected                                   in place of all others
Started (Searched | Delta)* Ended          always
"""

from dataclasses import dataclass
from typing import Any

from db.messages import MessageRow
from resolvers.errors import UserError


@dataclass(frozen=True, slots=True)
class Started:
    """The turn as it stood when following began; `reply.content` is what was stored."""

    question: MessageRow
    reply: MessageRow


@dataclass(frozen=True, slots=True)
class Searched:
    """The agent has searched. `citations` are as messages store them."""

    query: str
    citations: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Delta:
    """Some more text, and where it belongs: `offset` counts UTF-16 code units."""

    offset: int
    text: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The reply as it stands, for good. Told only after it was stored."""

    reply: MessageRow


@dataclass(frozen=True, slots=True)
class Rejected:
    """The send was refused, or there is no such reply of the viewer's."""

    error: UserError


StreamEvent = Searched | Delta | Ended
ReplyEvent = Started | Searched | Delta | Ended | Rejected
