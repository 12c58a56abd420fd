"""GraphiQL's page: whom it is served to, under which policy, and where its files come from."""

import re
from pathlib import Path

import pytest

from graphql_api import graphiql, static_assets
from graphql_api.graphiql import STATIC, STATIC_URL, content_security_policy, graphiql_page
from graphql_api.settings import Settings
from tests.people import Parley

HTML = {"Accept": "text/html"}
FILES = {path: hash for each in static_assets.FILES.values() for path, hash in each.items()}


def tags(page: str) -> list[str]:
    """Give the tags that load a file."""
    return re.findall(r"<(?:script|link)\b[^>]*(?:\.js|\.css)\"[^>]*>", page)


@pytest.fixture
def from_afar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tags of the page where no file is served by us."""
    monkeypatch.setattr(graphiql, "STATIC", tmp_path)
    return tags(graphiql_page("n0nce"))


@pytest.fixture
def local_files() -> dict[str, Path]:
    """GraphiQL's files here, by their paths in their packages."""
    found = {path: STATIC / path.rpartition("/")[2] for path in FILES}
    if not all(file.exists() for file in found.values()):
        pytest.skip("GraphiQL's files are not here: run `make assets`")
    return found


# --- the policy -----------------------------------------------------------------------


async def test_the_page_and_its_policy_have_one_nonce(parley: Parley):
    answer = await parley.http.get("/graphql", headers=HTML)
    [nonce] = set(re.findall(r'nonce="([^"]+)"', answer.text))
    assert f"script-src 'nonce-{nonce}'" in answer.headers["Content-Security-Policy"]


async def test_no_two_pages_have_the_same_nonce(parley: Parley):
    pages = [(await parley.http.get("/graphql", headers=HTML)).text for _ in range(2)]
    assert pages[0] != pages[1]


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "no-referrer"),
        ("Cache-Control", "no-store"),
    ],
)
async def test_the_page_is_sent_with(parley: Parley, header: str, value: str):
    answer = await parley.http.get("/graphql", headers=HTML)
    assert answer.headers[header] == value


def test_nothing_is_let_in_by_being_inline_or_by_its_address():
    policy = content_security_policy("n0nce")
    assert "unsafe-inline" not in policy
    assert "unsafe-eval" not in policy
    assert "http" not in policy


def test_every_script_and_style_has_the_nonce():
    page = graphiql_page("n0nce")
    elements = re.findall(r"<(?:script|style|link rel=\"stylesheet\")[^>]*>", page)
    bare = [each for each in elements if 'nonce="n0nce"' not in each]
    assert bare == ['<script type="application/json" id="example">']


def test_no_element_says_how_it_looks_or_what_it_does():
    assert re.findall(r"<[^>]*\s(?:style|on\w+)=", graphiql_page("n0nce")) == []


# --- its files ------------------------------------------------------------------------


def test_from_a_cdn_every_file_is_held_to_its_hash(from_afar: list[str]):
    hashes = [re.findall(r'integrity="([^"]+)" crossorigin="anonymous"', tag) for tag in from_afar]
    assert sorted(hashes) == sorted([hash] for hash in FILES.values())


def test_from_a_cdn_every_file_is_of_an_exact_version(from_afar: list[str]):
    assert len(from_afar) == len(FILES)
    assert all(re.search(r"https://[\w.]+/[\w-]+@\d+\.\d+\.\d+/", tag) for tag in from_afar)


def test_the_hashes_are_those_of_the_files(local_files: dict[str, Path]):
    found = {path: static_assets.integrity(file.read_bytes()) for path, file in local_files.items()}
    assert found == FILES


def test_what_is_here_is_not_fetched_from_elsewhere(local_files: dict[str, Path]):
    assert "https://" not in "".join(tags(graphiql_page("n0nce")))


async def test_what_the_page_names_is_served(parley: Parley, local_files: dict[str, Path]):
    addresses = re.findall(rf'"({STATIC_URL}/[^"]+)"', graphiql_page("n0nce"))
    assert len(addresses) == len(FILES)
    for address in addresses:
        assert (await parley.http.get(address)).status_code == 200


# --- where it is off ------------------------------------------------------------------


class TestInProduction:
    """Where GraphiQL is off unless it is asked for."""

    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"environment": "production"})

    async def test_it_is_off(self, parley: Parley):
        assert "<html" not in (await parley.http.get("/graphql", headers=HTML)).text

    async def test_its_files_are_not_served(self, parley: Parley):
        assert (await parley.http.get(f"{STATIC_URL}/graphiql.min.js")).status_code == 404


class TestInProductionWhereItIsAskedFor:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"environment": "production", "graphiql": True})

    async def test_it_is_on(self, parley: Parley):
        assert "<html" in (await parley.http.get("/graphql", headers=HTML)).text
