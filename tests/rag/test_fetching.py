import asyncio
import gzip
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from ipaddress import ip_address
from pathlib import Path

import pytest

from rag.fetching import Fetcher, FetchError, IPAddress, is_public

# For docs.example, signed by itself, until 2126.
CERTIFICATE = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgfZ+IQ7Nx5+pKtNoa
V8oH+kKAlh4IYR4SDpJRz5lC4WqhRANCAAQKnnySCqDORRKF7NjsRPE1BmrCNj2m
k1F/+ASkndJnvzN34Cu5ZdYWnPvRIaUUtAb1mjslVK1ONX/OOwQm72ws
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBnjCCAUSgAwIBAgIUCoY5GsTGFcsirDG2x1kltSur6PwwCgYIKoZIzj0EAwIw
FzEVMBMGA1UEAwwMZG9jcy5leGFtcGxlMCAXDTI2MTEyMTIzMzI1M1oYDzIxMjYx
MDI4MjMzMjUzWjAXMRUwEwYDVQQDDAxkb2NzLmV4YW1wbGUwWTATBgcqhkjOPQIB
BggqhkjOPQMBBwNCAAQKnnySCqDORRKF7NjsRPE1BmrCNj2mk1F/+ASkndJnvzN3
4Cu5ZdYWnPvRIaUUtAb1mjslVK1ONX/OOwQm72wso2wwajAdBgNVHQ4EFgQUn6ZJ
UCcplg5KW2r9voWvaI+TRD8wHwYDVR0jBBgwFoAUn6ZJUCcplg5KW2r9voWvaI+T
RD8wDwYDVR0TAQH/BAUwAwEB/zAXBgNVHREEEDAOggxkb2NzLmV4YW1wbGUwCgYI
KoZIzj0EAwIDSAAwRQIgT1iw2Ah/FtaM/AuR9hXbRRHaujeB2r7coxlJFAC2AeYC
IQCkGJnBmpqrP2iCwqO3q4UQUz3mYSLFAwM/87dC0xUGoQ==
-----END CERTIFICATE-----
"""

LOOPBACK = ip_address("127.0.0.1")


class Site:
    """A web server on loopback that answers each path with prepared bytes, and keeps requests."""

    def __init__(self) -> None:
        self.answers: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.port = 0
        self.release = asyncio.Event()

    def page(self, path: str, body: bytes = b"", *headers: str, status: str = "200 OK") -> None:
        head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
        self.answers[path] = "\r\n".join(head).encode() + body

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.requests.append(request)
        answer = self.answers.get(request.split()[1])
        if answer is None:
            await self.release.wait()
        else:
            writer.write(answer)
        try:
            await writer.drain()
            writer.close()
            await writer.wait_closed()
        except ConnectionError:
            pass  # the fetcher had enough

    def host(self, number: int = 0) -> str:
        return self.requests[number].split("Host: ")[1].split("\r\n")[0]


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    site = Site()
    server = await asyncio.start_server(site.serve, "127.0.0.1", 0)
    site.port = server.sockets[0].getsockname()[1]
    yield site
    site.release.set()
    server.close()
    await server.wait_closed()


def names(table: dict[str, list[str]]) -> Callable[[str, int], Awaitable[Sequence[IPAddress]]]:
    async def resolve(host: str, port: int) -> Sequence[IPAddress]:
        if host not in table:
            raise OSError("no such name")
        return [ip_address(address) for address in table[host]]

    return resolve


@pytest.fixture
async def fetcher() -> AsyncIterator[Fetcher]:
    """A fetcher for which 127.0.0.1, and nothing else, is the public internet."""
    fetcher = Fetcher(
        max_bytes=10_000,
        timeout_seconds=5,
        resolve=names(
            {
                "docs.example": ["127.0.0.1"],
                "private.example": ["10.0.0.1"],
                "mixed.example": ["127.0.0.1", "10.0.0.1"],
                "second.example": ["127.0.0.2", "127.0.0.1"],
                "nowhere.example": [],
            }
        ),
        permitted=lambda address: address in (LOOPBACK, ip_address("127.0.0.2")),
    )
    yield fetcher
    await fetcher.close()


async def test_a_page_is_fetched(site: Site, fetcher: Fetcher) -> None:
    site.page("/a/guide.md?x=1", b"# Guide", "Content-Type: Text/Markdown; charset=utf-8")
    fetched = await fetcher.fetch(f"http://docs.example:{site.port}/a/guide.md?x=1#part")
    assert fetched.data == b"# Guide"
    assert fetched.mime_type == "text/markdown"
    assert fetched.filename == "guide.md"
    assert fetched.url == f"http://docs.example:{site.port}/a/guide.md?x=1#part"
    assert site.host() == f"docs.example:{site.port}"
    assert "cookie" not in site.requests[0].lower()


async def test_proxies_of_the_environment_are_ignored(
    site: Site, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    site.page("/", b"direct")
    assert (await fetcher.fetch(f"http://docs.example:{site.port}/")).data == b"direct"


async def test_the_next_address_is_tried_where_the_first_takes_no_connection(
    site: Site, fetcher: Fetcher
) -> None:
    site.page("/", b"here")
    assert (await fetcher.fetch(f"http://second.example:{site.port}/")).data == b"here"


@pytest.mark.parametrize(("host", "fetched"), [("docs.example", True), ("other.example", False)])
async def test_the_certificate_is_checked_against_the_name(
    tmp_path: Path, host: str, fetched: bool
) -> None:
    (tmp_path / "both.pem").write_text(CERTIFICATE)
    theirs = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    theirs.load_cert_chain(tmp_path / "both.pem")
    site = Site()
    site.page("/", b"secret")
    server = await asyncio.start_server(site.serve, "127.0.0.1", 0, ssl=theirs)
    fetcher = Fetcher(
        max_bytes=100,
        timeout_seconds=5,
        allow_private=True,
        resolve=names({host: ["127.0.0.1"]}),
        verify=ssl.create_default_context(cadata=CERTIFICATE),
    )
    url = f"https://{host}:{server.sockets[0].getsockname()[1]}/"
    if fetched:
        assert (await fetcher.fetch(url)).data == b"secret"
    else:
        with pytest.raises(FetchError):
            await fetcher.fetch(url)
        assert site.requests == []
    await fetcher.close()
    server.close()


@pytest.mark.parametrize(
    ("header", "filename"),
    [
        ('attachment; filename="report.pdf"', "report.pdf"),
        ("attachment; filename*=UTF-8''r%C3%A9sum%C3%A9.pdf", "résumé.pdf"),
        ('attachment; filename="../../etc/passwd"', "passwd"),
        ('attachment; filename="C:\\\\temp\\\\a.doc"', "a.doc"),
        ("attachment; filename*=nonsense''%ff%00.pdf", None),
        ("attachment", "page"),
    ],
)
async def test_the_file_name_is_the_servers(
    site: Site, fetcher: Fetcher, header: str, filename: str | None
) -> None:
    site.page("/page", b"x", f"Content-Disposition: {header}")
    fetched = await fetcher.fetch(f"http://docs.example:{site.port}/page")
    if filename:
        assert fetched.filename == filename
    else:
        assert fetched.filename
        assert fetched.filename.isprintable()


async def test_redirects_are_followed(site: Site, fetcher: Fetcher) -> None:
    site.page("/old", b"", "Location: /new", status="301 Moved")
    site.page("/new", b"new")
    fetched = await fetcher.fetch(f"http://docs.example:{site.port}/old")
    assert (fetched.url, fetched.data) == (f"http://docs.example:{site.port}/new", b"new")


@pytest.mark.parametrize(
    "target",
    [
        "http://private.example/",
        "http://mixed.example/",
        "//private.example/secret",
        "http://docs.example:0/",
        "file:///etc/passwd",
        "gopher://docs.example/",
        "http://user:password@docs.example/",
        "http://[::1/",
    ],
)
async def test_a_redirect_to_where_it_may_not_go_is_refused(
    site: Site, fetcher: Fetcher, target: str
) -> None:
    site.page("/", b"", f"Location: {target}", status="302 Found")
    with pytest.raises(FetchError):
        await fetcher.fetch(f"http://docs.example:{site.port}/")
    assert len(site.requests) == 1


async def test_redirects_end(site: Site, fetcher: Fetcher) -> None:
    site.page("/", b"", "Location: /", status="302 Found")
    with pytest.raises(FetchError, match="redirects too often"):
        await fetcher.fetch(f"http://docs.example:{site.port}/")
    assert len(site.requests) == 6


async def test_a_name_that_changes_its_mind_gains_nothing(site: Site) -> None:
    answers = [["127.0.0.1"], ["10.0.0.1"]]

    async def resolve(host: str, port: int) -> Sequence[IPAddress]:
        return [ip_address(address) for address in answers.pop(0)]

    site.page("/", b"checked")
    fetcher = Fetcher(
        max_bytes=100,
        timeout_seconds=5,
        resolve=resolve,
        permitted=lambda address: address == LOOPBACK,
    )
    assert (await fetcher.fetch(f"http://docs.example:{site.port}/")).data == b"checked"
    assert answers == [["10.0.0.1"]]
    with pytest.raises(FetchError, match="public internet"):
        await fetcher.fetch(f"http://docs.example:{site.port}/")
    await fetcher.close()


@pytest.mark.parametrize("status", ["404 Not Found", "500 Oops", "304 Not Modified", "302 Found"])
async def test_another_status_is_an_error(site: Site, fetcher: Fetcher, status: str) -> None:
    site.page("/", b"", status=status)
    with pytest.raises(FetchError, match=status[:3]):
        await fetcher.fetch(f"http://docs.example:{site.port}/")


async def test_a_declared_size_that_is_too_large_is_refused(site: Site, fetcher: Fetcher) -> None:
    site.answers["/"] = b"HTTP/1.1 200 OK\r\nContent-Length: 10001\r\n\r\n"
    with pytest.raises(FetchError, match="larger than 10,000 bytes"):
        await fetcher.fetch(f"http://docs.example:{site.port}/")


async def test_an_undeclared_size_that_is_too_large_is_refused(
    site: Site, fetcher: Fetcher
) -> None:
    site.answers["/"] = b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 10_001
    with pytest.raises(FetchError, match="larger than 10,000 bytes"):
        await fetcher.fetch(f"http://docs.example:{site.port}/")


async def test_a_gzip_bomb_is_refused(site: Site, fetcher: Fetcher) -> None:
    bomb = gzip.compress(bytes(5_000_000))
    assert len(bomb) < 10_000
    site.page("/", bomb, "Content-Encoding: gzip")
    with pytest.raises(FetchError, match="larger than 10,000 bytes"):
        await fetcher.fetch(f"http://docs.example:{site.port}/")


async def test_gzip_is_unpacked(site: Site, fetcher: Fetcher) -> None:
    site.page("/", gzip.compress(b"text"), "Content-Encoding: gzip")
    assert (await fetcher.fetch(f"http://docs.example:{site.port}/")).data == b"text"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nraw",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
async def test_a_broken_answer_is_an_error(site: Site, fetcher: Fetcher, answer: bytes) -> None:
    site.answers["/"] = answer
    with pytest.raises(FetchError, match="broke off"):
        await fetcher.fetch(f"http://docs.example:{site.port}/")


async def test_a_server_that_never_answers_is_given_up(site: Site) -> None:
    fetcher = Fetcher(max_bytes=100, timeout_seconds=0.05, allow_private=True)
    with pytest.raises(FetchError, match="too long"):
        await fetcher.fetch(f"http://127.0.0.1:{site.port}/never")
    await fetcher.close()


@pytest.mark.parametrize(
    "url",
    ["", "nonsense", "/path", "ftp://docs.example/", "file:///etc/passwd", "javascript:alert(1)",
     "http://", "http:///path", "http://docs.example:0/", "http://docs.example:99999/",
     "http://me:secret@docs.example/", "http://me@docs.example/", "http://unknown.example/",
     "http://nowhere.example/", "http://docs.example\n/", "http://[::1", "http://\ud800/",
     "http://" + "a" * 70_000, "http://" + "a" * 300 + ".example/", "http://xn--/"],
)  # fmt: skip
async def test_an_address_that_is_none_is_refused(fetcher: Fetcher, url: str) -> None:
    with pytest.raises(FetchError):
        await fetcher.fetch(url)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "2130706433", "0x7f.1", "0177.0.0.1", "127.1", "0", "localhost", "[::1]", "[::]",
     "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "169.254.169.254", "10.1.2.3", "127.0.0.1.",
     "①②⑦.0.0.1", "[fe80::1%25lo]"],
)  # fmt: skip
async def test_every_way_to_write_a_private_address_is_refused(site: Site, host: str) -> None:
    fetcher = Fetcher(max_bytes=100, timeout_seconds=5)
    with pytest.raises(FetchError):
        await fetcher.fetch(f"http://{host}:{site.port}/")
    assert site.requests == []
    await fetcher.close()


@pytest.mark.parametrize(
    "address",
    ["0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.8.8.8",
     "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.2.1", "192.88.99.1",
     "192.168.1.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255",
     "240.0.0.1", "255.255.255.255", "168.63.129.16",
     "::", "::1", "::127.0.0.1", "::8.8.8.8", "::ffff:10.0.0.1", "::ffff:127.0.0.1",
     "64:ff9b::10.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::1", "100::1", "2001::1", "2001:db8::1",
     "2002:7f00:1::", "2002:808:808::1", "3fff::1", "5f00::1", "fc00::1", "fd00:ec2::254",
     "fe80::1", "fec0::1", "ff02::1"],
)  # fmt: skip
def test_an_address_that_is_not_public(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "8.8.8.8", "93.184.215.14", "172.32.0.1", "100.128.0.1", "192.169.0.1",
     "2606:4700:4700::1111", "2a00:1450:4001::1", "::ffff:8.8.8.8", "64:ff9b::808:808"],
)  # fmt: skip
def test_an_address_that_is_public(address: str) -> None:
    assert is_public(ip_address(address))
