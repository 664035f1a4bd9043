# SPDX-License-Identifier: Apache-2.0
"""Words as they stand on packages, signs and receipts."""

from __future__ import annotations

import string
from collections.abc import Callable

import numpy as np

__all__ = ["draw_characters", "draw_words"]

SYLLABLES = """
al an ar as ba be bo ca ce co da de di do el en er es fa fi for ga ge gra ha he hi in is it ka ke la le li lo ma me mi
mo na ne ni no on or pa pe pla po pro qua ra re ri ro sa se shi so sta ta te ti to tra un ur va ve vi wa we yo za
"""
WORDS = """
the of and to in a is for with on by from at this new free best before use keep cold dry open here net weight contents
ingredients made product page total price sale sum thank you scan me exit street water milk sugar salt flour coffee tea
batch lot no. serial model type size ticket seat row gate date invoice order number warning store cool place www please
recycle family organic original classic news today city hotel
"""
CASES: tuple[Callable[[str], str], ...] = (
    str,
    str,
    str.capitalize,
    str.title,
    str.upper,
    str.upper,
)


def draw_words(rng: np.random.Generator, length: int) -> str:
    """A line of print of at most ``length`` characters, without spaces at its ends."""
    parts: list[str] = []
    while sum(map(len, parts)) + len(parts) < length:
        parts.append(KINDS[int(rng.choice(len(KINDS), p=SHARES))](rng))
    line = CASES[int(rng.integers(len(CASES)))](" ".join(parts))
    if len(line) > length and line.rfind(" ", 0, length + 1) > length // 2:
        line = line[: line.rfind(" ", 0, length + 1)]
    return line[:length].strip() or "x"


def draw_characters(rng: np.random.Generator, letters: str, length: int) -> str:
    """Characters of ``letters``, each as likely."""
    return "".join(letters[index] for index in rng.integers(len(letters), size=length).tolist())


def _choose(rng: np.random.Generator, words: str) -> str:
    listed = words.split()
    return listed[int(rng.integers(len(listed)))]


def _word(rng: np.random.Generator) -> str:
    return _choose(rng, WORDS)


def _made_up(rng: np.random.Generator) -> str:
    return "".join(_choose(rng, SYLLABLES) for _ in range(int(rng.integers(1, 5))))


def _number(rng: np.random.Generator) -> str:
    digits = draw_characters(rng, string.digits, int(rng.integers(1, 9)))
    forms = (
        "{}",
        "{}.99",
        "${}",
        "{} g",
        "{}%",
        "No. {}",
        "#{}",
        "({})",
        "{}-{}",
        "{}/{}",
        "{}:{}",
    )
    return forms[int(rng.integers(len(forms)))].format(digits, digits[::-1][:2])


def _code(rng: np.random.Generator) -> str:
    letters = string.ascii_uppercase + string.digits
    return draw_characters(rng, letters, int(rng.integers(3, 10)))


def _address(rng: np.random.Generator) -> str:
    forms = ("www.{}.com", "{}@{}.org", "{}.net/{}", "{}, {}", "{} & {}", "{}!", "{}:", '"{}"')
    return forms[int(rng.integers(len(forms)))].format(_made_up(rng), _made_up(rng))


KINDS = (_word, _made_up, _number, _code, _address)
SHARES = (0.42, 0.3, 0.14, 0.06, 0.08)
