"""The schema that is served. `parley schema` prints it; `schema.graphql` is that print."""

import strawberry
from graphql import GraphQLError
from strawberry.schema.config import StrawberryConfig
from strawberry.types.execution import ExecutionContext

from graphql_api.errors import UNION_MEMBERS, ErrorCode, show
from graphql_api.mutations import Mutation
from graphql_api.queries import Query
from graphql_api.subscriptions import Subscription


class ParleySchema(strawberry.Schema):
    """A schema whose errors are fit to be shown."""

    def process_errors(
        self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None
    ) -> None:
        show(errors, execution_context)


schema = ParleySchema(
    query=Query,
    mutation=Mutation,
    subscription=Subscription,
    types=[ErrorCode],
    exception_handlers=UNION_MEMBERS,
    config=StrawberryConfig(sort_schema=False),
)


def printed_schema() -> str:
    """Give the schema as text, as `schema.graphql` holds it."""
    return schema.as_str() + "\n"
