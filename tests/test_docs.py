"""The documentation is true: its settings, commands, links and GraphQL exist, and run."""

import re
from pathlib import Path
from uuid import uuid4

import pytest
from graphql import OperationDefinitionNode, parse, validate

from graphql_api.cli import commands
from graphql_api.graphiql import EXAMPLE
from graphql_api.schema import schema
from graphql_api.settings import Settings
from tests.people import Person

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
README = PAGES[0].read_text()


def examples() -> list[str]:
    found = [re.findall(r"```graphql\n(.*?)```", page.read_text(), re.DOTALL) for page in PAGES]
    return [example for each in found for example in each]


def test_every_setting_is_in_the_readme_and_no_other():
    table = README[README.index("| setting |") :].split("\n\n")[0]
    documented = set(re.findall(r"`([A-Z][A-Z_]+)`", table.replace("NEON_DATABASE_URL", "")))
    assert documented == {name.upper() for name in Settings.model_fields}


def test_every_setting_has_the_default_that_the_readme_says():
    for name, field in Settings.model_fields.items():
        row = next(row for row in README.splitlines() if row.startswith(f"| `{name.upper()}`"))
        default = row.split("|")[2].strip().strip("`")
        if isinstance(field.default, bool):
            assert default == str(field.default).lower()
        elif field.default is None or isinstance(field.default, frozenset):
            assert default == "\N{EN DASH}"
        else:
            assert default == str(field.default)


def test_every_command_is_in_the_readme_and_no_other():
    documented = set(re.findall(r"^\| `parley (\w+)", README, re.MULTILINE))
    assert documented == set(commands.commands)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_to_one(page: Path):
    targets = re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("example", examples())
def test_every_graphql_example_fits_the_schema(example: str):
    assert validate(schema._schema, parse(example)) == []


async def test_the_examples_that_graphiql_opens_with_run_as_they_are(alice: Person):
    document = EXAMPLE.replace("%MESSAGE_ID%", str(uuid4()))
    assert validate(schema._schema, parse(document)) == []
    for operation in parse(document).definitions:
        assert isinstance(operation, OperationDefinitionNode)
        assert operation.name is not None
        if operation.operation.value != "subscription":
            answer = await alice.http.post(
                "/graphql",
                json={"query": document, "operationName": operation.name.value},
                headers={"X-Session-ID": alice.key},
            )
            assert "errors" not in answer.json(), answer.text
