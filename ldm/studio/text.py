"""Text on the page: the one function that escapes it, and the one that checks it."""

from typing import Any

SPECIAL = frozenset("&<>\"'\\`*_[](){}#!|~$^:@")


def escaped(text: object) -> str:
    """Return text for HTML and Markdown: characters with a meaning in either become character references."""
    return "".join(f"&#{ord(c)};" if c in SPECIAL else c for c in str(text).encode(errors="replace").decode())


def is_unicode(value: Any) -> bool:
    """Return whether all strings in a JSON value are valid Unicode: lone surrogates cannot be sent to the page."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return False
        return True
    if isinstance(value, dict):
        return all(is_unicode(key) and is_unicode(one) for key, one in value.items())
    return all(map(is_unicode, value)) if isinstance(value, list) else True
