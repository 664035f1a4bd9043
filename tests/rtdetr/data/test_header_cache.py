# SPDX-License-Identifier: Apache-2.0
"""A second start reads no image; a cache that is damaged, out of reach or out of date changes nothing."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from data_sets import HEIGHT, TRAIN, WIDTH, coco_folder, draw

from rtdetr.data import ReadOptions, check_data
from rtdetr.data.header_cache import Header, HeaderCache, Stamp, cache_folder

DECODE = ReadOptions(decode=True)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RTDETR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def data(cache: Path, tmp_path: Path) -> Path:
    """A data set that was checked once; not one of its files is an image any more, but all seem untouched."""
    root = coco_folder(tmp_path / "data")
    assert kinds(root) == set()
    for path in root.rglob("*.png"):
        overwrite(path, b"\0" * path.stat().st_size)
    return root


def overwrite(path: Path, content: bytes) -> None:
    state = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def kinds(root: Path, options: ReadOptions | None = None) -> set[str]:
    return {finding.kind for finding in check_data(root, options).report}


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_a_second_start_reads_no_image(data: Path) -> None:
    splits = check_data(data)
    assert list(splits.report) == []
    assert splits.train is not None
    assert splits.train.annotations.sizes.tolist() == [[HEIGHT, WIDTH]] * 12


def test_decoding_trusts_no_cache(data: Path) -> None:
    assert "unreadable-image" in kinds(data, DECODE)


def test_the_cache_lies_outside_of_the_data(data: Path, cache: Path) -> None:
    assert {path.suffix for path in files(data)} == {".json", ".png"}
    assert [path.parent for path in files(cache)] == [cache / "headers"] * 2


@pytest.mark.parametrize(
    "change",
    [lambda path: os.utime(path, (1, 1)), lambda path: overwrite(path, b"\0")],
    ids=["time", "length"],
)
def test_a_file_that_changed_is_read(change: Callable[[Path], None], data: Path) -> None:
    change(data / "train" / TRAIN[4])
    (finding,) = check_data(data).report
    assert (finding.kind, finding.count, finding.first) == ("unreadable-image", 1, TRAIN[4])


def test_a_replaced_file_has_its_own_size(cache: Path, tmp_path: Path) -> None:
    root = coco_folder(tmp_path / "data")
    assert kinds(root) == set()
    draw(root / "train" / TRAIN[4], size=(WIDTH * 2, HEIGHT))
    assert kinds(root) == {"size-differs"}
    assert kinds(root) == {"size-differs"}


def flip_a_bit(data: bytes) -> bytes:
    return data[:90] + bytes([data[90] ^ 1]) + data[91:]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "short": lambda data: data[:5],
    "cut": lambda data: data[:-7],
    "longer": lambda data: data + b"\0",
    "a bit": flip_a_bit,
    "junk": lambda data: b"junk" * 100,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_cache_is_none(damage: Callable[[bytes], bytes], data: Path, cache: Path) -> None:
    for file in files(cache):
        file.write_bytes(damage(file.read_bytes()))
    assert "unreadable-image" in kinds(data)


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir], ids=["file", "folder"])
def test_a_cache_that_cannot_be_written(
    make: Callable[[Path], None], cache: Path, tmp_path: Path
) -> None:
    """Something else is where its folder, or its file, should be."""
    root = coco_folder(tmp_path / "data")
    check_data(root)
    blocked = files(cache)
    if make is Path.touch:
        [file.unlink() for file in blocked]
        blocked = [cache / "headers"]
        blocked[0].rmdir()
    for path in blocked:
        path.unlink(missing_ok=True)
        make(path)
    assert kinds(root) == set()


def test_a_user_without_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RTDETR_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: os.fspath(path))
    HeaderCache.of("data", "train").write({Stamp(b"0" * 16, 1, 1): Header((1, 2))})
    assert list(tmp_path.iterdir()) == []


def test_many_write_and_read_at_once(tmp_path: Path) -> None:
    cache = HeaderCache(tmp_path / "cache")
    both = [
        {Stamp(bytes([kind]) * 16, i, i): Header((i + 1, 2)) for i in range(2000)}
        for kind in (1, 2)
    ]
    cache.write(both[0])
    writers = [
        threading.Thread(target=lambda rows=rows: [cache.write(rows) for _ in range(20)])  # type: ignore[misc]
        for rows in both
    ]
    [writer.start() for writer in writers]
    while any(writer.is_alive() for writer in writers):
        assert cache.read() in both
    assert os.listdir(tmp_path) == ["cache"]  # noqa: PTH208 -- names alone


PLACES = {
    "own": ({"RTDETR_CACHE": "/c", "XDG_CACHE_HOME": "/x"}, "/c"),
    "own below the home": ({"RTDETR_CACHE": "~/c", "HOME": "/h"}, "/h/c"),
    "of the system": ({"XDG_CACHE_HOME": "/x"}, "/x/rtdetr"),
    "default": ({"HOME": "/h"}, "/h/.cache/rtdetr"),
}


@pytest.mark.parametrize(("variables", "folder"), PLACES.values(), ids=PLACES)
def test_where_the_cache_is(
    variables: dict[str, str], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RTDETR_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(folder)
