"""GraphiQL's files: which they are, and how `make assets` fetches them with npm into `static/`.

From there they are served by us; where they are missing, browsers fetch the same files from a
CDN. Works before the virtual environment is made: it needs Python's own library alone.
"""

import base64
import hashlib
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

STATIC = Path(__file__).parent / "static"
FILES: Mapping[str, Mapping[str, str]] = {
    "react@18.2.0": {
        "umd/react.production.min.js": (
            "sha384-tMH8h3BGESGckSAVGZ82T9n90ztNXxvdwvdM6UoR56cYcf+0iGXBliJ29D+wZ/x8"
        ),
    },
    "react-dom@18.2.0": {
        "umd/react-dom.production.min.js": (
            "sha384-bm7MnzvK++ykSwVJ2tynSE5TRdN+xL418osEVF2DE/L/gfWHj91J2Sphe582B1Bh"
        ),
    },
    "graphiql@3.8.3": {
        "graphiql.min.js": (
            "sha384-HbRVEFG0JGJZeAHCJ9Xm2+tpknBQ7QZmNlO/DgZtkZ0aJSypT96YYGRNod99l9Ie"
        ),
        "graphiql.min.css": (
            "sha384-Mq3vbRBY71jfjQAt/DcjxUIYY33ksal4cgdRt9U/hNPvHBCaT2JfJ/PTRiPKf0aM"
        ),
    },
}
"""npm packages, what is taken of each, and its hash as pages name it (Subresource Integrity).

GraphiQL 3.8.3 and React 18 are the last that have files to be loaded by a plain page.
"""


def integrity(content: bytes) -> str:
    """Give a file's hash as it stands in an `integrity` attribute."""
    return "sha384-" + base64.b64encode(hashlib.sha384(content).digest()).decode()


def main() -> int:
    missing = {
        package: files
        for package, files in FILES.items()
        if not all((STATIC / Path(path).name).exists() for path in files)
    }
    if not missing:
        return 0
    npm = shutil.which("npm")
    if npm is None:
        print("No npm here: GraphiQL's files will come from a CDN.")  # noqa: T201
        return 0
    STATIC.mkdir(exist_ok=True)
    for package, files in missing.items():
        try:
            fetch(npm, package, files)
        except (subprocess.SubprocessError, OSError, ValueError, KeyError) as error:
            print(f"GraphiQL's {package} could not be fetched ({error}); a CDN will serve it.")  # noqa: T201
    return 0


def fetch(npm: str, package: str, files: Mapping[str, str]) -> None:
    """Unpack some files of a package into `STATIC`. Raises `ValueError` if one is another."""
    with TemporaryDirectory() as folder:
        pack = [npm, "pack", package, "--pack-destination", folder]
        subprocess.run(pack, check=True, capture_output=True, timeout=60)
        [packed] = Path(folder).glob("*.tgz")
        with tarfile.open(packed) as archive:
            for path, expected in files.items():
                member = archive.extractfile(f"package/{path}")
                assert member is not None
                content = member.read()
                if integrity(content) != expected:
                    raise ValueError(f"{path} is not the file that was expected")
                (STATIC / Path(path).name).write_bytes(content)


if __name__ == "__main__":
    sys.exit(main())
