"""What one operation may ask for, found out before it runs.

Two walks over the document, neither of which can be made long by its author: each fragment is
walked once. The first looks at its shape, before validation, whose rules themselves can be
made slow; the second adds up the cost, which needs the types and the variables.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from graphql import (
    GRAPHQL_MAX_INT,
    GRAPHQL_MIN_INT,
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLCompositeType,
    GraphQLField,
    GraphQLSchema,
    InlineFragmentNode,
    IntValueNode,
    OperationDefinitionNode,
    SelectionSetNode,
    VariableNode,
    is_composite_type,
)
from graphql.pyutils import Undefined

from resolvers.cursors import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE

PRICES = {
    ("Query", "searchDocuments"): 50,  # embeds the query and asks the vector store
    ("Mutation", "sendMessage"): 100,
    ("Mutation", "addDocument"): 50,
    ("Mutation", "claimAnonymousUser"): 50,
    ("Subscription", "sendMessage"): 100,
}
"What costs more than 1, which is what a field costs otherwise."
COUNT_PRICE = 5
"Of a connection's `totalCount`, which is counted when asked for."
MAX_REPEATS = 50
"""Of one field or fragment side by side. Validation compares each with each: a thousand take a
second."""
ASSUMED_LENGTH = 5
"Of a list that is not paged: a reply cites a handful of passages."
FIELDS_OF_A_TYPE = 4
"On average. Most have no arguments, values, interfaces: those lists count as one, if that."
INTROSPECTED_FOR_1 = 2
"Fields of the schema itself: they are read from memory, and most of those asked for are null."


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of each an operation may have. `cost` is in fields, roughly."""

    tokens: int = 2_000
    depth: int = 15
    aliases: int = 30
    directives: int = 30
    cost: int = 50_000


class TooComplex(Exception):
    """An operation asks for more than is allowed; the message says of what."""


class PageTooLong(Exception):
    """A page of more rows than are allowed is asked for."""


class Shape(NamedTuple):
    """How an operation looks, its fragments where they are spread."""

    depth: int
    aliases: int
    directives: int


def check_shape(document: DocumentNode, limits: Limits) -> None:
    """Raise `TooComplex` for an operation that nests, renames or annotates too much.

    So does a fragment, though nothing spreads it: validation looks into each.
    """
    walk = _Shapes(document, limits)
    on_definitions = sum(len(_directives(each)) for each in document.definitions)
    for definition in document.definitions:
        if isinstance(definition, OperationDefinitionNode | FragmentDefinitionNode):
            shape = walk.of(definition.selection_set)
            asked = (
                ("depth", shape.depth, limits.depth),
                ("aliases", shape.aliases, limits.aliases),
                ("directives", shape.directives + on_definitions, limits.directives),
            )
            for name, has, most in asked:
                _refuse_above(most, has, name)


def _directives(definition: Any) -> list[Any]:
    """Give the directives of a definition itself, and of the variables that it declares."""
    declared = getattr(definition, "variable_definitions", None) or ()
    own = [*(definition.directives or ())]
    return own + [each for variable in declared for each in variable.directives or ()]


def _refuse_above(most: int, has: int, name: str) -> None:
    if has > most:
        raise TooComplex(f"The operation's {name} is {has:,}; at most {most:,} is allowed.")


def _fragments(document: DocumentNode) -> dict[str, FragmentDefinitionNode]:
    return {
        each.name.value: each
        for each in document.definitions
        if isinstance(each, FragmentDefinitionNode)
    }


class _Shapes:
    def __init__(self, document: DocumentNode, limits: Limits) -> None:
        self._fragments = _fragments(document)
        self._known: dict[str, Shape] = {}
        self._known_names: dict[str, Counter[str]] = {}
        self._limits = limits

    def of(self, selection_set: SelectionSetNode, level: int = 0) -> Shape:
        """Give a selection's shape. What is deeper than allowed is not looked at any further."""
        depth = aliases = directives = 0
        repeats = max(self._names(selection_set).values(), default=0)
        _refuse_above(MAX_REPEATS, repeats, "number of fields of one name")
        if level > self._limits.depth:
            return Shape(1, 0, 0)
        for selection in selection_set.selections:
            directives += len(selection.directives or ())
            below = Shape(0, 0, 0)
            if isinstance(selection, FieldNode):
                aliases += selection.alias is not None
                if selection.selection_set:
                    below = self.of(selection.selection_set, level + 1)
                below = below._replace(depth=below.depth + 1)
            elif isinstance(selection, InlineFragmentNode):
                below = self.of(selection.selection_set, level)
            elif isinstance(selection, FragmentSpreadNode):
                below = self._of_fragment(selection.name.value)
            depth = max(depth, below.depth)
            aliases += below.aliases
            directives += below.directives
        return Shape(depth, aliases, directives)

    def _names(self, selection_set: SelectionSetNode) -> Counter[str]:
        """Count what is selected side by side, by its name, also through fragments."""
        names: Counter[str] = Counter()
        for selection in selection_set.selections:
            if isinstance(selection, FieldNode):
                names[(selection.alias or selection.name).value] += 1
            elif isinstance(selection, InlineFragmentNode):
                names["…"] += 1
                names += self._names(selection.selection_set)
            elif isinstance(selection, FragmentSpreadNode):
                names[f"…{selection.name.value}"] += 1
                names += self._names_of_fragment(selection.name.value)
        return names

    def _names_of_fragment(self, name: str) -> Counter[str]:
        if name not in self._known_names:
            self._known_names[name] = Counter()  # if it spreads itself
            fragment = self._fragments.get(name)
            if fragment is not None:
                self._known_names[name] = self._names(fragment.selection_set)
        return self._known_names[name]

    def _of_fragment(self, name: str) -> Shape:
        if name not in self._known:
            self._known[name] = Shape(0, 0, 0)  # if it spreads itself; validation refuses that
            fragment = self._fragments.get(name)
            if fragment is not None:
                self._known[name] = self.of(fragment.selection_set)
        return self._known[name]


def cost_of(
    schema: GraphQLSchema,
    document: DocumentNode,
    operation: OperationDefinitionNode,
    variables: Mapping[str, Any],
) -> int:
    """Add up what a valid operation costs: its fields, times the rows that they are asked of.

    Raises `PageTooLong`.
    """
    root = schema.get_root_type(operation.operation)
    assert root is not None, "it is valid"
    return _Costs(schema, document, operation, variables).of(operation.selection_set, root, 1)


class _Costs:
    def __init__(
        self,
        schema: GraphQLSchema,
        document: DocumentNode,
        operation: OperationDefinitionNode,
        variables: Mapping[str, Any],
    ) -> None:
        self._schema = schema
        self._fragments = _fragments(document)
        self._variables = variables
        self._defaults = {
            each.variable.name.value: each.default_value
            for each in operation.variable_definitions or ()
        }
        self._known: dict[tuple[str, int], int] = {}

    def of(self, selection_set: SelectionSetNode, parent: GraphQLCompositeType, page: int) -> int:
        """Give a selection's cost; `page` is how many edges the connection has that it is of."""
        return sum(self._of_selection(each, parent, page) for each in selection_set.selections)

    def _of_selection(self, selection: Any, parent: GraphQLCompositeType, page: int) -> int:
        if isinstance(selection, FieldNode):
            return self._of_field(selection, parent, page)
        if isinstance(selection, InlineFragmentNode):
            return self.of(selection.selection_set, self._narrowed(selection, parent), page)
        name = selection.name.value
        if (name, page) not in self._known:
            fragment = self._fragments[name]
            inside = self._narrowed(fragment, parent)
            self._known[name, page] = self.of(fragment.selection_set, inside, page)
        return self._known[name, page]

    def _narrowed(self, node: Any, parent: GraphQLCompositeType) -> GraphQLCompositeType:
        condition = node.type_condition
        named = condition and self._schema.get_type(condition.name.value)
        return cast("GraphQLCompositeType", named or parent)

    def _of_field(self, node: FieldNode, parent: GraphQLCompositeType, page: int) -> int:
        name = node.name.value
        field = self._schema.get_field(parent, name)
        price = PRICES.get((parent.name, name), 1)
        if field is None or name == "__typename":
            return price
        written = str(cast("Any", field).type)
        kind = self._schema.get_type(written.strip("[]!"))
        if parent.name.endswith("Connection") and name == "totalCount":
            return COUNT_PRICE
        size = self._asked_size(node, field)
        if node.selection_set is None or not is_composite_type(kind):
            return price
        if parent.name.endswith("Connection") and name == "edges":
            return price + page * self.of(node.selection_set, kind, 1)
        if kind.name.endswith("Connection"):
            page = DEFAULT_PAGE_SIZE if size is None else size
            return price + self.of(node.selection_set, kind, page)
        if size is None:
            size = self._assumed_size(parent, name) if written.startswith("[") else 1
        below = size * self.of(node.selection_set, kind, 1)
        return price + (below // INTROSPECTED_FOR_1 if name.startswith("__") else below)

    def _assumed_size(self, parent: GraphQLCompositeType, name: str) -> int:
        """Say how long a list is that is not paged. Of the schema itself that is known."""
        if (parent.name, name) == ("__Schema", "types"):
            return len(self._schema.type_map)
        if parent.name.startswith("__"):
            return FIELDS_OF_A_TYPE if name == "fields" else 1
        return ASSUMED_LENGTH

    def _asked_size(self, node: FieldNode, field: GraphQLField) -> int | None:
        """Read how many rows a field is asked for; null: that is not said. Raises `PageTooLong`."""
        sizes: list[int] = []
        for argument in node.arguments or ():
            name = argument.name.value
            value = self._value(argument.value)
            if name in ("first", "last") and value is not None and "after" in field.args:
                if value > MAX_PAGE_SIZE:
                    raise PageTooLong(f"{name} is a number from 0 to {MAX_PAGE_SIZE}, not {value}.")
                sizes.append(max(0, value))
            elif name == "limit" and value is not None:
                sizes.append(max(0, value))
        limit = field.args.get("limit")
        if not sizes and limit is not None and limit.default_value is not Undefined:
            return limit.default_value
        return max(sizes, default=None)

    def _value(self, node: Any) -> int | None:
        if isinstance(node, VariableNode):
            name = node.name.value
            if name in self._variables:
                return _whole(self._variables[name])
            node = self._defaults.get(name)
        return int(node.value) if isinstance(node, IntValueNode) else None


def _whole(given: object) -> int | None:
    """Read a number as GraphQL's Int does, which takes 50.0 too; null: it will be refused."""
    if isinstance(given, float) and given.is_integer():
        given = int(given)
    if isinstance(given, bool) or not isinstance(given, int):
        return None
    return given if GRAPHQL_MIN_INT <= given <= GRAPHQL_MAX_INT else None
