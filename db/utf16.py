"""Lengths in UTF-16 code units, which is what `length` counts in JavaScript and most frontends."""


def utf16_length(text: str) -> int:
    """Count the UTF-16 code units of a text."""
    return len(text) + sum(character > "\uffff" for character in text)
