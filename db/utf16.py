"""Text by UTF-16 code units, which is what `length` counts in JavaScript and most frontends."""


def utf16_length(text: str) -> int:
    """Count the UTF-16 code units of a text."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le", "surrogatepass")) // 2


def index_at(text: str, offset: int) -> int:
    """Give the index in `text` of the character at an offset in UTF-16 code units.

    Inside a surrogate pair: the character that the pair stands for. Past the end: the length.
    """
    if text.isascii():
        return min(offset, len(text))
    units = text.encode("utf-16-le")[: 2 * offset]
    return len(units.decode("utf-16-le", "ignore"))
