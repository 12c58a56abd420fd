"""The Node interface of Relay's global object identification."""

import strawberry


@strawberry.interface(
    description="Anything with a globally unique id. Ids are UUIDs, the same in GraphQL, REST,"
    " Postgres and Qdrant."
)
class Node:
    id: strawberry.ID = strawberry.field(
        description="A UUID; of version 7 where the server made it."
    )
