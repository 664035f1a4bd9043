# SPDX-License-Identifier: Apache-2.0
"""Damage to bytes and to JSON, as disks, downloads, editors and attackers do it."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from random import Random
from typing import Any

Json = Any  # what json.loads returns

ODD_JSON: tuple[Json, ...] = (
    *(None, True, False, 0, 1, -1, 3, 7, 10**6, 2**31, 2**63, 2**70, -(2**63)),
    *(0.0, -0.5, 1.5, 1e-300, 1e300, math.nan, math.inf),
    *(
        "",
        "x",
        "640",
        "é人",
        "a" * 5000,
        [],
        [[]],
        [1],
        [1, 2, 3, 4],
        ["x"],
        {},
        {"0": "x"},
        {"x": {}},
    ),
)


def damage_bytes(data: bytes, random: Random) -> bytes:
    """Some bytes flipped, cut off, overwritten, repeated, put in or taken out."""
    for _ in range(random.choice((1, 1, 1, 2, 5))):
        data = random.choice(_BYTE_DAMAGES)(data, random)
    return data


def damage_json(text: str, random: Random) -> str:
    """One to three values replaced, removed or nested; rarely, the text itself is damaged."""
    if random.random() < 0.1:
        return damage_bytes(text.encode(), random).decode(errors="replace")
    tree = [json.loads(text)]
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        holder, key = random.choice(_places(tree))
        _change(holder, key, random)
    text = json.dumps(tree[0])
    return text if random.random() < 0.97 else "[" * 100_000 + text


def _places(tree: Json) -> list[tuple[Json, Any]]:
    """Every (container, key) in ``tree``."""
    if not isinstance(tree, (list, dict)):
        return []
    keys = range(len(tree)) if isinstance(tree, list) else list(tree)
    return [place for key in keys for place in ((tree, key), *_places(tree[key]))]


def _change(holder: Json, key: Any, random: Random) -> None:
    chance = random.random()
    if chance < 0.7:
        holder[key] = copy.deepcopy(random.choice(ODD_JSON))
    elif chance < 0.8 and isinstance(holder, dict):
        del holder[key]
    elif chance < 0.9:
        holder[key] = [holder[key]]
    else:
        for _ in range(random.choice((3, 200))):
            holder[key] = [holder[key]]


def _flip(data: bytes, random: Random) -> bytes:
    flipped = bytearray(data)
    for _ in range(random.choice((1, 4, 64))):
        if flipped:
            flipped[_position(data, random)] ^= 1 << random.randrange(8)
    return bytes(flipped)


def _cut(data: bytes, random: Random) -> bytes:
    return data[: _position(data, random)]


def _overwrite(data: bytes, random: Random) -> bytes:
    at, fill = _position(data, random), random.choice((b"\0", b"\xff", b"{", b"\x80"))
    length = min(random.choice((1, 4, 8, 300)), len(data) - at)
    return data[:at] + fill * length + data[at + length :]


def _insert(data: bytes, random: Random) -> bytes:
    at = _position(data, random)
    return data[:at] + random.randbytes(random.choice((1, 8, 100))) + data[at:]


def _remove(data: bytes, random: Random) -> bytes:
    at = _position(data, random)
    return data[:at] + data[at + random.choice((1, 8, 1000)) :]


def _repeat(data: bytes, random: Random) -> bytes:
    at = _position(data, random)
    return data[:at] + data[at : at + 64] * random.choice((2, 50)) + data[at:]


def _position(data: bytes, random: Random) -> int:
    """Anywhere, but half of the time in the first 512 bytes: headers matter most."""
    end = min(len(data), 512) if random.random() < 0.5 else len(data)
    return random.randrange(end) if end else 0


_BYTE_DAMAGES: tuple[Callable[[bytes, Random], bytes], ...] = (
    _flip,
    _flip,
    _cut,
    _overwrite,
    _insert,
    _remove,
    _repeat,
)
