"""What a subscription to a reply is told."""

from typing import Annotated, assert_never

import strawberry

from graphql_api.types.chat import ChatMessage
from graphql_api.types.documents import Citation
from graphql_api.types.errors import UserError, shown_error
from resolvers import events


@strawberry.type(description="First, always. `reply.content` holds what was stored so far.")
class ReplyStarted:
    user_message: ChatMessage = strawberry.field(description="What was said.")
    reply: ChatMessage = strawberry.field(description="The reply as it stood just now.")


@strawberry.type(description="The agent has searched. Repeated for a follower who comes later.")
class ReplySearched:
    query: str = strawberry.field(description="What it looked for.")
    citations: list[Citation] = strawberry.field(description="All that it found, best first.")


@strawberry.type(
    description="Some more of the text. Within one subscription the deltas are contiguous, begin"
    " at the offset that was asked for (inside a surrogate pair: at the pair's beginning), and"
    " never split a pair. To resume: the length of what you have."
)
class ReplyDelta:
    offset: int = strawberry.field(
        description="How much of the reply stands before `text`, in UTF-16 code units: what"
        " `length` counts in JavaScript, Java, Dart, C# and Swift's utf16."
    )
    text: str = strawberry.field(description="The text, never empty.")


@strawberry.type(
    description="Last, always, and only after the outcome is stored. `reply.status` says which"
    " outcome; `reply.content` is what stands."
)
class ReplyEnded:
    reply: ChatMessage = strawberry.field(description="The reply, for good.")


@strawberry.type(
    description="In place of all others: the send was refused, or there is no such reply of the"
    " viewer's."
)
class ReplyRejected:
    error: UserError = strawberry.field(description="Why it is so.")


ReplyEvent = Annotated[
    ReplyStarted | ReplySearched | ReplyDelta | ReplyEnded | ReplyRejected,
    strawberry.union("ReplyEvent", description="Something that happened to a reply."),
]


def shown_event(event: events.ReplyEvent) -> ReplyEvent:
    """Show an event as the schema has it."""
    match event:
        case events.Started(question, reply):
            return ReplyStarted(user_message=ChatMessage.of(question), reply=ChatMessage.of(reply))
        case events.Searched(query, citations):
            return ReplySearched(query=query, citations=[Citation.of_stored(c) for c in citations])
        case events.Delta(offset, text):
            return ReplyDelta(offset=offset, text=text)
        case events.Ended(reply):
            return ReplyEnded(reply=ChatMessage.of(reply))
        case events.Rejected(error):
            return ReplyRejected(error=shown_error(error))
        case _:
            assert_never(event)
