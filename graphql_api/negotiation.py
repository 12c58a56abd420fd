"""How a client wants its answer: Accept, its order and q-values (RFC 9110, GraphQL over HTTP)."""

from collections.abc import Iterable
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


_ANY = {
    "*/*": (Media.JSON, Media.RESPONSE),
    "application/*": (Media.JSON, Media.RESPONSE),
}
"What is meant by a range, the likeliest first."


def accepted_media(accept: Iterable[str]) -> list[Media]:
    """Give what the Accept headers take of ours, best first. Without any: plain JSON."""
    wanted: list[tuple[float, Media]] = []
    refused: set[Media] = set()
    said = False
    for part in ",".join(accept).split(","):
        name, quality, parameters = _media_range(part)
        said = said or bool(part.strip())
        media = _ANY.get(name) or tuple(each for each in Media if each == name)
        if Media.MULTIPART in media and "subscriptionspec" not in parameters:
            continue  # @defer, or parts of some other kind
        if quality > 0:
            wanted += [(quality, each) for each in media]
        elif name not in _ANY:
            refused |= set(media)
    if not said:
        return [Media.JSON]
    wanted.sort(key=lambda each: -each[0])
    return list(dict.fromkeys(media for _, media in wanted if media not in refused))


def _media_range(part: str) -> tuple[str, float, set[str]]:
    """Read a media range: its name, its q-value, and the names of its parameters."""
    name, *parameters = (piece.strip().lower() for piece in part.split(";"))
    values = {key: value for key, _, value in (each.partition("=") for each in parameters)}
    try:
        quality = float(values.get("q", "1"))
    except ValueError:
        quality = 0.0
    return name, quality, set(values)
