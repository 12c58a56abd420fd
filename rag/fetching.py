"""A URL that a stranger gave, to bytes: only from the public internet, only so much, only so long.

The danger is server-side request forgery: a URL that names, resolves or redirects to something
only this server can reach. So a name is resolved here, its addresses are checked, and the
connection goes to the very address that was checked, whatever the name resolves to a moment later.
"""

import asyncio
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from email.message import Message
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import unquote

import httpx2

REDIRECTS_MAX = 5
ADDRESSES_TRIED_MAX = 4
CONNECT_TIMEOUT_SECONDS = 5.0
# So that an address that swallows packets leaves time for the next one.

FILENAME_MAX_CHARACTERS = 255

_HEADERS = {
    "User-Agent": "Mozilla/5.0 (compatible; Parley)",
    "Accept": "text/html, text/markdown, application/pdf, text/plain;q=0.9, */*;q=0.5",
    # Both are decoded in pieces of bounded size, so that a bomb is noticed while it unfolds.
    "Accept-Encoding": "gzip, deflate",
    # The pool tells connections apart by address: two names at one address would share one, and
    # with it the certificate that was checked for the first.
    "Connection": "close",
}

IPAddress = IPv4Address | IPv6Address
Resolve = Callable[[str, int], Awaitable[Sequence[IPAddress]]]

_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
_NOT_PUBLIC = (
    IPv4Network("192.88.99.0/24"),  # relays from IPv6
    IPv4Network("168.63.129.16/32"),  # Azure's host, public by its number only
    IPv6Network("2001::/23"),  # Teredo and other protocols
    IPv6Network("2002::/16"),  # 6to4: an IPv4 address, perhaps a private one, in disguise
    IPv6Network("3fff::/20"),  # documentation
)


class FetchError(Exception):
    """What the URL names can't be had; the message is one sentence for a person."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a URL gave. `url` is where redirects ended; `mime_type` what the server says it is."""

    url: str
    data: bytes
    mime_type: str | None
    filename: str | None


def is_public(address: IPAddress) -> bool:
    """Tell whether an address belongs to the public internet, by IANA's special-purpose registries.

    IPv4 addresses that are written as IPv6 (mapped, or NAT64's well-known prefix, by which hosts
    without IPv4 see the web) count as what they stand for.
    """
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped:
            return is_public(address.ipv4_mapped)
        if address in _NAT64:
            return is_public(IPv4Address(int(address) & 0xFFFFFFFF))
        if address not in _UNICAST:
            return False
    return (
        address.is_global
        and not address.is_multicast
        and not address.is_reserved
        and not any(address in network for network in _NOT_PUBLIC)
    )


async def resolved(host: str, port: int) -> Sequence[IPAddress]:
    """Resolve by the operating system, best first; it reads decimal, octal and hex numbers too."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [ip_address(address[0]) for *_, address in found]


class Fetcher:
    """Fetches URLs without cookies, proxies or credentials, each on a connection of its own.

    `allow_private` lifts the check of addresses, for tests and closed networks.
    """

    def __init__(
        self,
        *,
        max_bytes: int,
        timeout_seconds: float,
        allow_private: bool = False,
        resolve: Resolve = resolved,
        permitted: Callable[[IPAddress], bool] = is_public,
        verify: ssl.SSLContext | bool = True,
    ) -> None:
        self._max_bytes = max_bytes
        self._timeout_seconds = timeout_seconds
        self._allow_private = allow_private
        self._resolve = resolve
        self._permitted = permitted
        self._transport = httpx2.AsyncHTTPTransport(verify=verify, trust_env=False)

    async def fetch(self, url: str) -> Fetched:
        """Get a URL, following redirects, all within the time limit. Raises `FetchError`."""
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await self._fetch(httpx2.URL(url))
        except TimeoutError as error:
            raise FetchError("The server took too long.") from error
        except httpx2.InvalidURL as error:
            raise FetchError("The address is not a valid URL.") from error
        except httpx2.HTTPError as error:
            raise FetchError("The server could not be reached or broke off.") from error

    async def close(self) -> None:
        """Break off what is still being fetched."""
        await self._transport.aclose()

    async def _fetch(self, url: httpx2.URL) -> Fetched:
        for _ in range(REDIRECTS_MAX + 1):
            response = await self._respond(url)
            try:
                if not response.has_redirect_location:
                    return await self._read(url, response)
                url = url.join(response.headers["Location"])
            finally:
                await response.aclose()
        raise FetchError("The address redirects too often.")

    async def _respond(self, url: httpx2.URL) -> httpx2.Response:
        """Ask one server, at the first of its addresses that takes a connection."""
        addresses = await self._addresses(url)
        for number, address in enumerate(addresses, 1):
            request = httpx2.Request(
                "GET",
                url.copy_with(host=str(address), fragment=None),
                headers=_HEADERS | {"Host": url.netloc.decode("ascii")},
                extensions={
                    "sni_hostname": url.raw_host.decode("ascii"),
                    "timeout": {"connect": CONNECT_TIMEOUT_SECONDS},
                },
            )
            try:
                return await self._transport.handle_async_request(request)
            except (httpx2.ConnectError, httpx2.ConnectTimeout):
                if number == len(addresses):
                    raise
        raise FetchError("The address's server has no public address.")

    async def _addresses(self, url: httpx2.URL) -> Sequence[IPAddress]:
        if url.scheme not in ("http", "https"):
            raise FetchError("Only http and https addresses can be fetched.")
        if url.userinfo:
            raise FetchError("The address must not contain a user name or password.")
        port = {"http": 80, "https": 443}[url.scheme] if url.port is None else url.port
        if not url.host or not 0 < port < 65_536:
            raise FetchError("The address is not a valid URL.")
        try:
            addresses = await self._resolve(url.raw_host.decode("ascii"), port)
        except (OSError, UnicodeError) as error:
            raise FetchError("The address's server is not known.") from error
        # One private address among public ones is a sign of an attack, not something to skip.
        if not self._allow_private and not all(map(self._permitted, addresses)):
            raise FetchError("The address does not belong to the public internet.")
        return addresses[:ADDRESSES_TRIED_MAX]

    async def _read(self, url: httpx2.URL, response: httpx2.Response) -> Fetched:
        if not response.is_success:
            raise FetchError(f"The server answered with status {response.status_code}.")
        too_large = FetchError(f"The file is larger than {self._max_bytes:,} bytes.")
        length = response.headers.get("Content-Length", "")
        if length.isdecimal() and int(length) > self._max_bytes:
            raise too_large
        data = bytearray()
        async with aclosing(response.aiter_bytes()) as pieces:
            async for piece in pieces:
                data += piece
                if len(data) > self._max_bytes:
                    raise too_large
        content_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        return Fetched(str(url), bytes(data), content_type or None, _filename(url, response))


def _filename(url: httpx2.URL, response: httpx2.Response) -> str | None:
    """Take the name that the server gives, else the last part of the path, without folders."""
    message = Message()
    message["Content-Disposition"] = response.headers.get("Content-Disposition", "")
    name = message.get_filename() or unquote(url.path)
    name = re.split(r"[/\\]", name)[-1]
    return "".join(filter(str.isprintable, name)).strip()[-FILENAME_MAX_CHARACTERS:] or None
