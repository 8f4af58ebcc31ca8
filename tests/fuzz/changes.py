"""Random changes of bytes and of nested values."""

import copy
import random
from typing import Any

# What people and tools put where another value belongs.
STRANGE: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    2,
    3,
    7,
    1.5,
    -0.5,
    0.0,
    1e30,
    10**12,
    10**400,
    -(10**9),
    float("nan"),
    float("inf"),
    float("-inf"),
    "",
    " ",
    "x",
    "false",
    "nan",
    "null",
    "1e-4",
    "0",
    "../../..",
    "/",
    "/dev/zero",
    "a\0b",
    "é" * 40,
    "x" * 5000,
    [],
    [1],
    [0],
    [1, 2, 3],
    [-1, None],
    ["x", "y"],
    [[]],
    list(range(100)),
    {},
    {"a": 1},
    {"target": 5},
    {"target": "os.system", "params": {"command": "touch canary"}},
    {"target": "ldm.modules.unet.UNet"},
    {"target": "ldm.modules.unet.UNet", "params": None},
    {0: 1},
)


def changed_bytes(rng: random.Random, data: bytes) -> tuple[bytes, str]:
    """Return bytes with one to three flipped, overwritten, inserted, removed or cut, and a description."""
    kind = rng.choice(("flip", "flip", "flip", "overwrite", "insert", "remove", "cut", "repeat"))
    content = bytearray(data)
    at = rng.randrange(len(content))
    if kind == "flip":
        places = [at, *(rng.randrange(len(content)) for _ in range(rng.randrange(3)))]
        for place in places:
            content[place] ^= 1 << rng.randrange(8)
        return bytes(content), f"bits of the bytes {places} flipped"
    length = rng.choice((1, 2, 4, 8, 64, 1024))
    if kind == "overwrite":
        content[at : at + length] = rng.randbytes(len(content[at : at + length]))
    elif kind == "insert":
        content[at:at] = rng.choice((rng.randbytes(length), b"\0" * length, b"\xff" * length))
    elif kind == "remove":
        del content[at : at + length]
    elif kind == "cut":
        del content[at:]
    else:
        content += content[at:]
    return bytes(content), f"{kind} {length} at {at} of {len(data)}"


def paths_in(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every value in nested dictionaries and lists."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, part in items for found in ((*path, key), *paths_in(part, (*path, key)))]


def changed_value(rng: random.Random, config: Any) -> tuple[Any, tuple[Any, ...], str]:
    """Return a copy with one value replaced, removed, or under another key; with its path and a description."""
    result = copy.deepcopy(config)
    path = rng.choice(paths_in(result))
    parent = result
    for key in path[:-1]:
        parent = parent[key]
    where, kind = ".".join(map(str, path)), rng.choice(("set", "set", "set", "set", "remove", "misspell"))
    if kind == "remove":
        del parent[path[-1]]
    elif kind == "misspell" and isinstance(path[-1], str) and len(path[-1]) > 2:
        letters = list(path[-1])
        at = rng.randrange(len(letters) - 1)
        letters[at], letters[at + 1] = letters[at + 1], letters[at]
        parent["".join(letters)] = parent.pop(path[-1])
        where += f" as {''.join(letters)}"
    else:
        kind, parent[path[-1]] = "set", rng.choice(STRANGE)
        return result, path, f"{where} = {parent[path[-1]]!r:.60}"
    return result, path, f"{kind} {where}"
