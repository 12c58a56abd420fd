"""What docs/clients.md shows is short, whole, and checked by the compilers that it names."""

from pathlib import Path

import pytest

from tests.interop.sites import PAGE, SHOWN, Client, Fault, Site, examples, write_site

LINES = 25
"Each example is shorter than this, as the page's title says."


def the(name: str) -> Client:
    return next(client for client in SHOWN if client.name == name)


def build(site: Site, client: Client) -> None:
    assert client.build
    client.build(site)


def test_every_example_is_run():
    assert set(examples()) == {PAGE, *(name for client in SHOWN for name in client.files)}


@pytest.mark.parametrize("name", examples())
def test_an_example_is_short(name: str):
    assert len(examples()[name].splitlines()) < LINES


@pytest.mark.parametrize(
    ("name", "file", "right", "wrong"),
    [
        ("codegen", "typed.ts", "data.event.text)", "data.event.texts)"),
        ("relay", "relay.js", "startCursor", "firstCursor"),
    ],
)
def test_what_the_api_does_not_have_is_found_before_it_runs(
    name: str, file: str, right: str, wrong: str, node: str, tmp_path: Path
):
    site = write_site(tmp_path, node, the(name))
    example = site.folder / file
    assert right in example.read_text()
    example.write_text(example.read_text().replace(right, wrong))
    with pytest.raises(Fault):
        build(site, the(name))


def test_relay_takes_an_offset_that_may_be_left_out(node: str, tmp_path: Path):
    site = write_site(tmp_path, node, the("relay"))
    example = site.folder / "relay.js"
    example.write_text(example.read_text().replace("$at: Int!", "$at: Int"))
    build(site, the("relay"))
