"""How a client wants its answer: Accept, its order and q-values (RFC 9110, GraphQL over HTTP)."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Media(StrEnum):
    """What we can answer with."""

    JSON = "application/json"
    RESPONSE = "application/graphql-response+json"
    EVENTS = "text/event-stream"
    MULTIPART = "multipart/mixed"
    HTML = "text/html"

    @property
    def is_stream(self) -> bool:
        return self in (Media.EVENTS, Media.MULTIPART)


_PLAIN = (Media.JSON, Media.RESPONSE)
"What a range such as `*/*` means, the likeliest first: streams and pages are asked for by name."


@dataclass(frozen=True, slots=True)
class _Range:
    """A media range: its name, its q-value, where it stands, and the names of its parameters."""

    name: str
    quality: float
    place: int
    parameters: frozenset[str]

    def precision(self, media: Media) -> int:
        """Say how precisely it means what we have: 0, not at all."""
        if self.name == media:
            # Without one it is @defer, or parts of some other kind.
            return 3 if media is not Media.MULTIPART or "subscriptionspec" in self.parameters else 0
        if media not in _PLAIN:
            return 0
        return {"application/*": 2, "*/*": 1}.get(self.name, 0)


def accepted_media(accept: Iterable[str]) -> list[Media]:
    """Give what the Accept headers take of ours, best first. Without any: plain JSON.

    What holds for a medium is the range that means it most precisely. Among those of one
    q-value, what was named first comes first.
    """
    ranges = [
        _media_range(part, place)
        for place, part in enumerate(",".join(accept).split(","))
        if part.strip()
    ]
    if not ranges:
        return [Media.JSON]
    wanted: list[tuple[float, int, Media]] = []
    for media in Media:
        named = max(ranges, key=lambda each: each.precision(media))
        if named.precision(media) and named.quality > 0:
            wanted.append((-named.quality, named.place, media))
    wanted.sort(key=lambda each: each[:2])
    return [media for *_, media in wanted]


def _media_range(part: str, place: int) -> _Range:
    name, *parameters = (piece.strip().lower() for piece in part.split(";"))
    values = {key: value for key, _, value in (each.partition("=") for each in parameters)}
    try:
        quality = float(values.get("q", "1"))
    except ValueError:
        quality = 0.0
    return _Range(name, quality, place, frozenset(values))
