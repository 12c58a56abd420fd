"""The examples of docs/clients.md, taken out and made ready to run."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "clients.md"
CLIENTS = Path(__file__).parent / "clients"
PACKAGES = CLIENTS / "node_modules"
PAGE = "page.js"
ADDRESS = "127.0.0.1:8000"
"Where the examples say that Parley is."
COMPILE_SECONDS = 60


def examples() -> dict[str, str]:
    """Give the files that docs/clients.md shows, by name, as they stand there."""
    found = re.findall(r"^```\w+ (\S+)\n(.*?)^```$", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE)
    return dict(found)


class Fault(Exception):
    """A compiler refused an example; the message is what it says."""


@dataclass(frozen=True)
class Site:
    """A folder with an example, the API's schema, and npm's packages."""

    folder: Path
    node: str

    def run(self, script: Path, *arguments: str) -> None:
        """Run a script in this folder, to its end."""
        ended = subprocess.run(
            [self.node, script, *arguments],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=COMPILE_SECONDS,
            env={"PATH": os.environ["PATH"], "HOME": str(self.folder), "NO_COLOR": "1"},
        )
        if ended.returncode != 0:
            raise Fault(ended.stdout + ended.stderr)


Build = Callable[[Site], None]


def compile_relay(site: Site) -> None:
    """Have relay-compiler write artifacts, and Babel's plugin import them."""
    (site.folder / "__generated__").mkdir()
    site.run(PACKAGES / "relay-compiler/cli.js")
    site.run(CLIENTS / "compile.mjs", "relay.js", "relay.js")


def compile_typescript(site: Site) -> None:
    """Have graphql-codegen write types, and the compiler check by them, strictly."""
    site.run(PACKAGES / "@graphql-codegen/cli/cjs/bin.js")
    flags = ["--strict", "--target", "es2022", "--module", "nodenext"]
    site.run(PACKAGES / "typescript/bin/tsc", *flags, "typed.ts")


@dataclass(frozen=True)
class Client:
    """A client library, and what is particular to it."""

    name: str
    files: tuple[str, ...]
    "The last one defines the functions that all examples do."
    build: Build | None = None
    joins_pages: bool = False
    "Its cache joins the pages of a history; without, each comes alone."
    reconnects: bool = False

    @property
    def module(self) -> str:
        return self.files[-1].replace(".ts", ".js")

    @property
    def is_python(self) -> bool:
        return self.module.endswith(".py")


SHOWN = (
    Client("apollo", ("apollo.js",), joins_pages=True),
    Client("urql", ("urql.js",), joins_pages=True),
    Client(
        "relay", ("relay.config.json", "relay.js"), compile_relay, joins_pages=True, reconnects=True
    ),
    Client("graphql-ws", ("graphql-ws.js",), reconnects=True),
    Client("graphql-sse", ("graphql-sse.js",), reconnects=True),
    Client("codegen", ("codegen.yml", "chat.graphql", "typed.ts"), compile_typescript),
    Client("gql", ("chat.py",)),
)


def write_site(folder: Path, node: str, client: Client, address: str = ADDRESS) -> Site:
    """Write a client's example into an empty folder, at another address than is shown."""
    shown = examples()
    files = {name: shown[name].replace(ADDRESS, address) for name in client.files}
    files["schema.graphql"] = (ROOT / "schema.graphql").read_text()
    files["package.json"] = '{"type": "module"}'
    if not client.is_python:
        # What the documentation says of pages that load is true of each example.
        source = f'"./{client.module}";\n'
        files[PAGE] = f"import {{ history, resume }} from {source}export * from {source}"
        files[PAGE] += shown[PAGE]
        (folder / "node_modules").symlink_to(PACKAGES)
    for name, content in files.items():
        (folder / name).write_text(content)
    return Site(folder, node)


def command(site: Site, client: Client) -> list[str]:
    """Give what starts a page; it takes one more argument, the file that it keeps things in."""
    if client.is_python:
        return [sys.executable, str(CLIENTS / "page.py"), str(site.folder / client.module)]
    return [site.node, "--no-warnings", str(CLIENTS / "page.mjs"), str(site.folder / PAGE)]
