# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rtdetr.errors import UsageError
from rtdetr.results import fonts
from rtdetr.results.drawing import Style, draw
from rtdetr.results.fonts import FontFile, open_font, plain_text, split_by_font

OWN = FontFile()


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Nothing is remembered from another test."""
    for function in (fonts._has, fonts._find_font):
        function.cache_clear()
    fonts._scripts_warned_of.clear()
    yield
    for function in (fonts._has, fonts._find_font):
        function.cache_clear()


def system_font() -> FontFile:
    font = fonts._find_font("é")
    if font is None:
        pytest.skip("no font of this machine has é")
    return font


def test_letters_that_the_own_font_lacks_come_from_another() -> None:
    font = system_font()
    assert split_by_font("dog 0.93", OWN) == [("dog 0.93", OWN)]
    assert split_by_font("éléphant 0.93", OWN) == [("éléphant 0.93", font)]
    assert not fonts._has(OWN, "é")
    assert fonts._has(font, "é")


# What each font has, in place of the fonts of this machine.
LETTERS = {"own": "abc 01.", "han": "人車 ", "latin": "abcéè ", "both": "λ人ab ."}
SPLITS = {
    "all of the own": ("abc 0.1", [("abc 0.1", "own")]),
    "all of another": ("éa b", [("éa b", "latin")]),
    "a word each": ("人 0.1", [("人 ", "han"), ("0.1", "own")]),
    "words of one font are one piece": ("é è 0.1 a", [("é è ", "latin"), ("0.1 a", "own")]),
    "within a word": ("人é", [("人", "han"), ("é", "latin")]),
    "marks stay with their letter": ("人\u0301é", [("人\u0301", "han"), ("é", "latin")]),
    "missing": ("Ж a", [("Ж a", "own")]),
    "nothing": ("", [("", "own")]),
}


@pytest.mark.parametrize("case", SPLITS)
@pytest.mark.filterwarnings("ignore:labels")
def test_pieces(monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    def has(font: FontFile, char: str) -> bool:
        return char in LETTERS[str(font.path)] or fonts._is_mark(char)

    def find(char: str) -> FontFile | None:
        names = [name for name in ("han", "latin") if char in LETTERS[name]]
        return FontFile(names[0]) if names else None

    monkeypatch.setattr(fonts, "_has", has)
    monkeypatch.setattr(fonts, "_find_font", find)
    text, pieces = SPLITS[case]
    wanted = [(part, FontFile(name)) for part, name in pieces]
    assert split_by_font(text, FontFile("own")) == wanted


def plot(text: str, font: str | Path | None = None) -> Image.Image:
    image = Image.new("RGB", (300, 200), (128, 128, 128))
    boxes = np.asarray([[50, 60, 150, 120]], np.float32)
    return draw(image, boxes, np.asarray([0]), [text], Style(font=font))


def test_a_letter_that_no_font_has_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "_fonts_with", lambda _: iter(()))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plot("人 0.9")
        plot("車人 0.9")
    (warning,) = caught
    wanted = (
        'labels: no font of this machine has "人"; name one that has it: Style(font=...), --font'
    )
    assert str(warning.message) == wanted
    with pytest.warns(UserWarning, match="ह"):
        plot("हाथी")


def test_without_fontconfig_the_usual_folders_are_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    font = system_font()
    fonts._find_font.cache_clear()
    (tmp_path / "deep").mkdir()
    (tmp_path / "a-sans.ttf").write_bytes(b"no font")
    (tmp_path / "readme.txt").touch()
    copy = shutil.copy(str(font.path), tmp_path / "deep" / "z.ttf")
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(fonts, "FONT_FOLDERS", (str(tmp_path), "~no-such-user/fonts"))
    assert fonts._find_font("é") == FontFile(str(copy))
    assert fonts._find_font("\U0010fffe") is None


def test_fontconfig_that_fails_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: "/bin/fc-list")
    monkeypatch.setenv("PATH", "")
    assert fonts._find_font("é") is None


def test_labels_differ_by_letters_and_not_by_missing_ones() -> None:
    system_font()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        images = [np.asarray(plot(text)) for text in ("éè 0.9", "èé 0.9", "автомобиль")]
    assert not np.array_equal(images[0], images[1])


def test_own_font_is_taken_first() -> None:
    font = system_font()
    assert not np.array_equal(np.asarray(plot("dog", font.path)), np.asarray(plot("dog")))
    assert split_by_font("dog", open_font(font.path)) == [("dog", FontFile(font.path))]


def test_font_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "text.ttf").write_text("no font")
    os.mkfifo(tmp_path / "pipe.ttf")
    for name in ("none.ttf", "text.ttf", "pipe.ttf", "."):
        with pytest.raises(UsageError, match=r"font: expected a TrueType file, got .*"):
            plot("dog", tmp_path / name)


def test_plain_text() -> None:
    assert plain_text(" two\r\nlines\tof \x1b[1m\udce9text\u2028 ") == "two lines of [1mtext"
    assert plain_text("क\u200dष") == "क\u200dष"
