"""The names most similar to a mistyped one, for error messages."""

import difflib
from collections.abc import Iterable


def by_similarity(name: object, known: Iterable[str]) -> list[str]:
    """Return the names in `known`, those most similar to `name` first, ignoring case."""
    text = str(name).lower()
    return sorted(known, key=lambda other: -difflib.SequenceMatcher(None, text, other.lower()).ratio())


def closest_name(name: object, known: Iterable[str]) -> str:
    """Return the name in `known` most similar to `name`, quoted, or "(nothing)" if `known` is empty."""
    names = by_similarity(name, known)
    return repr(names[0]) if names else "(nothing)"
