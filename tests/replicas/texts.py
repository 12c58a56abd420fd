"""Text that is hard to count, in many small pieces."""

from itertools import cycle, islice

FRAGMENTS = (
    "Tea ",
    "cafe",
    "\u0301 ",  # an accent apart from its letter
    "👩",
    "\u200d👩",  # a family, joined over three pieces
    "\u200d👧 ",
    "\ud83d",  # half of 😀: a gateway may cut between any two code units
    "\ude00 ",
    "🇩",
    "🇪 ",  # a flag of two
    "𝒳₁ ",
    "नम",
    "स्ते ",
    "👍",
    "🏽 ",  # a skin, apart from its thumb
    "z̷͎̎",
    "\nein Satz. ",
)


def pieces(count: int) -> list[str]:
    return [*islice(cycle(FRAGMENTS), count - 1), "Ende."]


def joined(parts: list[str]) -> str:
    """Join pieces as UTF-16 does: two halves of a pair are one character."""
    return "".join(parts).encode("utf-16-le", "surrogatepass").decode("utf-16-le")


def units(text: str) -> int:
    """Count as JavaScript does."""
    return len(text.encode("utf-16-le")) // 2
