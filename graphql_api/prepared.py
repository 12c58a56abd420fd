"""What stands between asking and running: an operation that was found out and may run."""

from dataclasses import dataclass
from typing import Any

from graphql import DocumentNode
from strawberry.types.graphql import OperationType


@dataclass(frozen=True, slots=True)
class Prepared:
    """An operation that may run. It was parsed, validated, and costs no more than is allowed."""

    document: DocumentNode
    text: str
    kind: OperationType
    name: str | None
    variables: dict[str, Any]
    cost: int
