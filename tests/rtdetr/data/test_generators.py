# SPDX-License-Identifier: Apache-2.0
"""Data sets that are made: the same bytes for the same seed, boxes around what was drawn, digits of val apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rtdetr.data import load_data
from rtdetr.data.generators import GENERATORS, SceneMaker, make_generator, write_data_set
from rtdetr.errors import UsageError

NEEDS = {"codes": ("matplotlib", "segno", "barcode"), "digits": ("sklearn",)}


@pytest.fixture(scope="module", params=list(GENERATORS))
def maker(request: pytest.FixtureRequest) -> SceneMaker:
    for package in NEEDS[request.param]:
        pytest.importorskip(package)
    if request.param == "digits":
        return make_generator("digits", {})
    with pytest.warns(UserWarning, match="font families"):
        return make_generator("codes", {"fonts": packaged_fonts()})


def packaged_fonts() -> Path:
    """Those of matplotlib, which are on every machine."""
    import matplotlib as mpl

    return Path(mpl.get_data_path()) / "fonts" / "ttf"


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_same_seed_same_bytes(maker: SceneMaker, tmp_path: Path) -> None:
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_data_set(tmp_path / folder, maker, 10, seed)
    first, second, other = (contents(tmp_path / folder) for folder in "abc")
    assert first == second
    assert first.keys() == other.keys()
    assert all(first[name] != other[name] for name in first)


def test_workers_change_no_byte(maker: SceneMaker, tmp_path: Path) -> None:
    """Enough images that both have some, at 16 for a process at a time."""
    for workers in (0, 2):
        write_data_set(tmp_path / str(workers), maker, 40, 3, workers=workers)
    assert contents(tmp_path / "0") == contents(tmp_path / "2")


def test_more_images_keep_the_first(maker: SceneMaker, tmp_path: Path) -> None:
    for folder, images in (("few", 10), ("more", 20)):
        write_data_set(tmp_path / folder, maker, images, 0)
    few, more = contents(tmp_path / "few"), contents(tmp_path / "more")
    assert all(more[name] == few[name] for name in few if name.endswith(".jpg"))


def test_what_is_made_passes_the_check(maker: SceneMaker, tmp_path: Path) -> None:
    boxes = write_data_set(tmp_path / "data", maker, 150, 0)
    splits = load_data(tmp_path / "data", strict=True)
    assert list(splits.report) == []
    assert splits.train is not None
    assert splits.val is not None
    assert (len(splits.train), len(splits.val)) == (120, 30)
    assert splits.train.annotations.categories.names == maker.names
    for name, split in (("train", splits.train), ("val", splits.val)):
        held = split.annotations
        assert len(held.boxes) == boxes[name]
        assert (held.class_counts() > 0).all()
    counts = splits.train.annotations.counts()
    assert counts.min() == 0
    assert counts.max() >= 6


def test_boxes_are_tight_around_what_was_painted() -> None:
    """On a ground that is known: the same scene without its digits."""
    pytest.importorskip("sklearn")
    from rtdetr.data.generators.digits import EMPTY_SHARE, Digits
    from rtdetr.data.generators.ground import draw_ground

    maker = Digits()
    checked = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        ground = np.asarray(draw_ground(rng, (320, 320), maker._photos)).astype(int)
        scene = maker.draw(np.random.default_rng(seed), is_val=False)
        changed = np.abs(np.asarray(scene.image).astype(int) - ground).max(2) > 12
        is_empty = rng.random() < EMPTY_SHARE
        assert is_empty <= (len(scene.boxes) == 0)
        outside = changed.copy()
        for x1, y1, x2, y2 in scene.boxes:
            outside[y1:y2, x1:x2] = False
        assert not outside.any()
        if len(scene.boxes) == 1:
            rows, columns = np.nonzero(changed)
            found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert np.abs(scene.boxes[0] - found).max() <= 2
            checked += 1
    assert checked >= 3


@pytest.mark.parametrize("smallest", [None, 80])
def test_smallest_digits_are_as_high_as_asked_for(smallest: int | None) -> None:
    from rtdetr.data.generators.digits import Digits

    maker = Digits(smallest)
    boxes = np.concatenate(
        [maker.draw(np.random.default_rng(seed), is_val=False).boxes for seed in range(40)]
    )
    heights = boxes[:, 3] - boxes[:, 1]
    # Ink does not fill its place, and is turned.
    assert 0.6 * (smallest or 20) < heights.min() < 1.4 * (smallest or 20)


@pytest.mark.parametrize("smallest", [19, 151])
def test_digits_of_another_height_are_refused(smallest: int) -> None:
    from rtdetr.data.generators.digits import Digits

    with pytest.raises(UsageError, match=r"^smallest: expected 20 to 150 pixels, got"):
        Digits(smallest)


def test_val_has_digits_of_its_own() -> None:
    pytest.importorskip("sklearn")
    from rtdetr.data.generators.digits import HELD_OUT, Digits

    maker = Digits()
    drawn = {
        is_val: {maker._choose(np.random.default_rng(seed), is_val) for seed in range(5000)}
        for is_val in (False, True)
    }
    assert drawn[True].isdisjoint(drawn[False])
    assert all(index % HELD_OUT == 0 for index in drawn[True])
    assert len(drawn[False]) > 1300


def test_folder_with_something_in_it(maker: SceneMaker, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="expected a new or an empty folder"):
        write_data_set(tmp_path, maker, 10, 0)
    assert contents(tmp_path) == {"notes.txt": b"mine"}


@pytest.mark.parametrize("argument", ["seed", "workers"])
def test_negative_numbers(argument: str, maker: SceneMaker, tmp_path: Path) -> None:
    numbers = {"seed": 0, "workers": 0, argument: -1}
    with pytest.raises(UsageError, match=f"{argument}: expected a number of at least 0, got -1"):
        write_data_set(tmp_path / "new", maker, 10, numbers["seed"], workers=numbers["workers"])


def test_folders_that_a_kind_does_not_take(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match="backgrounds: expected with another kind of data set, got with digits"
    ):
        make_generator("digits", {"backgrounds": tmp_path})


def test_a_single_image_is_too_few(maker: SceneMaker, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="images: expected at least 2"):
        write_data_set(tmp_path, maker, 1, 0)
