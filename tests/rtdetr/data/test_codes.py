# SPDX-License-Identifier: Apache-2.0
"""Made codes and print: boxes around what is visible, sizes and shares as promised, fonts and photos of val apart."""

from __future__ import annotations

import math
import pickle
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_generators import packaged_fonts

from rtdetr.data import load_data
from rtdetr.data.dataset import DetectionDataset
from rtdetr.data.generators import Codes, Scene, SceneSequence, barcodes, codes, fonts, ink, photos
from rtdetr.data.generators.sheets import BARCODE, QR_CODE, TEXT, Sheet, draw_sheet
from rtdetr.data.generators.warp import View, Warp
from rtdetr.data.loader import make_loader
from rtdetr.data.sequences import ImagesOnDemand
from rtdetr.errors import DataError, MissingExtraError, UsageError

for package in ("matplotlib", "segno", "barcode"):
    pytest.importorskip(package)

SCENES = 200
pytestmark = pytest.mark.filterwarnings("ignore:fonts. .* font families")


@pytest.fixture(scope="module")
def maker() -> Codes:
    return Codes(fonts=packaged_fonts())


@pytest.fixture(scope="module")
def scenes(maker: Codes) -> list[Scene]:
    return [maker.draw(np.random.default_rng(seed), is_val=False) for seed in range(SCENES)]


@pytest.fixture(scope="module")
def sheets(maker: Codes) -> list[Sheet]:
    family = maker._families[False][0]
    streams = [np.random.default_rng(seed) for seed in range(600)]
    return [draw_sheet(rng, 320, family) for rng in streams]


VIEWS = {
    "straight": View((100, 80)),
    "turned": View((100, 80), 0.8, 2.1),
    "tilted": View((100, 80), 0.9, 0.4, 0.9, 1.2, 1.5),
    "bent": View((100, 80), 0.9, 0.4, 0.5, 1.2, 2.0, (9.0, 120.0, 0.7)),
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_pixels_come_where_points_do(view: View) -> None:
    """Dots of 5x5 pixels, which the border of nothing else is near."""
    warp = Warp((120, 90), view)
    for x, y in ((30, 20), (60, 45), (95, 70), (25, 75)):
        dot = Image.new("L", (120, 90))
        dot.paste(255, (x - 2, y - 2, x + 3, y + 3))
        painted = np.asarray(warp.paint(dot, (0, 0, 200, 160), Image.Resampling.BILINEAR), float)
        rows, columns = np.mgrid[:160, :200] + 0.5
        center = [(painted * axis).sum() / painted.sum() for axis in (columns, rows)]
        point = warp.forward(np.array([[x + 0.5, y + 0.5]]))
        assert center == pytest.approx(point[0].tolist(), abs=0.3)
        assert warp.backward(point)[0] == pytest.approx([x + 0.5, y + 0.5], abs=1e-9)


def test_part_of_an_image_is_cut_from_the_whole() -> None:
    sheet = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 120), dtype=np.uint8))
    for view in VIEWS.values():
        warp = Warp(sheet.size, view)
        whole = warp.paint(sheet, (0, 0, 200, 160), Image.Resampling.NEAREST)
        part = warp.paint(sheet, (40, 30, 130, 90), Image.Resampling.NEAREST)
        differ = np.asarray(whole.crop((40, 30, 130, 90))) != np.asarray(part)
        assert differ.mean() < 0.01  # where rounding decides


def empty_frame(width: int, height: int) -> codes.Frame:
    return codes.Frame(Image.new("RGB", (width, height)), np.zeros((height, width), np.int64))


def test_boxes_are_the_hulls_of_objects_drawn_alone(sheets: list[Sheet]) -> None:
    """Each object as a white shape on black, by the same view; letters are a little frayed."""
    counts: Counter[int] = Counter()
    bent = 0
    for seed, sheet in enumerate(sheets[:250]):
        rng = np.random.default_rng(seed)
        view = codes._draw_view(rng, sheet, (320, 240))
        warp = Warp(sheet.size, view)
        frame = empty_frame(320, 240)
        if not frame.place(rng, sheet, warp):
            continue
        boxes, classes = frame.boxes()
        hulls = []
        for number in range(1, len(sheet.classes) + 1):
            shape = Image.fromarray((sheet.index == number) * np.uint8(255))
            alone = np.asarray(warp.paint(shape, (0, 0, 320, 240), Image.Resampling.BILINEAR))
            rows, columns = (np.flatnonzero((alone >= 100).any(axis)) for axis in (1, 0))
            if len(rows):
                hulls.append([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
        assert len(hulls) == len(boxes)
        for box, label, hull in zip(boxes, classes.tolist(), hulls, strict=True):
            assert np.abs(box - hull).max() <= 1 + (label == TEXT), (seed, box, hull)
            counts[label] += 1
        bent += view.wave[0] > 0
    assert min(counts[label] for label in (TEXT, QR_CODE, BARCODE)) > 25
    assert bent > 8


def test_boxes_of_codes_are_the_hulls_of_their_corners(sheets: list[Sheet]) -> None:
    """By projecting the four corners, where all of a flat code is within the frame."""
    checked = 0
    for seed, sheet in enumerate(sheets[:250]):
        rng = np.random.default_rng(seed)
        view = replace(codes._draw_view(rng, sheet, (320, 240)), wave=(0.0, 1.0, 0.0))
        warp = Warp(sheet.size, view)
        frame = empty_frame(320, 240)
        if sheet.classes in ((QR_CODE,), (BARCODE,)) and frame.place(rng, sheet, warp):
            rows, columns = (np.flatnonzero(sheet.index.any(axis)) for axis in (1, 0))
            xs, ys = (columns[0], columns[-1] + 1), (rows[0], rows[-1] + 1)
            corners = warp.forward(np.array([[x, y] for x in xs for y in ys], float))
            if (corners >= 0).all() and (corners <= (320, 240)).all():
                hull = np.concatenate([corners.min(0), corners.max(0)])
                # A sharp corner has a tip without the middle of a pixel.
                assert np.abs(frame.boxes()[0][0] - hull).max() <= 1.5
                checked += 1
    assert checked > 20


def test_what_lies_on_an_object_is_refused() -> None:
    sheet = Sheet(*np.ones((2, 40, 40), np.uint8), (QR_CODE,))
    frame = empty_frame(100, 100)
    rng = np.random.default_rng(0)
    assert frame.place(rng, sheet, Warp((40, 40), View((30, 30))))
    assert not frame.place(rng, sheet, Warp((40, 40), View((45, 45))))
    assert frame.place(rng, sheet, Warp((40, 40), View((75, 75))))
    assert frame.boxes()[0].tolist() == [[10, 10, 50, 50], [55, 55, 95, 95]]


@pytest.mark.parametrize(("left", "fits"), [(-15, True), (-23, True), (-25, False), (-41, False)])
def test_what_runs_out_of_the_frame(left: int, fits: bool) -> None:
    """Two fifths of an object are enough."""
    sheet = Sheet(*np.ones((2, 40, 40), np.uint8), (QR_CODE,))
    frame = empty_frame(100, 100)
    rng = np.random.default_rng(0)
    assert frame.place(rng, sheet, Warp((40, 40), View((left + 20, 30)))) is fits
    assert frame.boxes()[0].tolist() == ([[0, 10, left + 40, 50]] if fits else [])


def test_shares(scenes: list[Scene]) -> None:
    """A tenth is empty, within four standard deviations; no class is rare."""
    empty = sum(len(scene.boxes) == 0 for scene in scenes)
    assert abs(empty - SCENES / 10) < 4 * math.sqrt(SCENES * 0.1 * 0.9)
    counts = np.bincount(np.concatenate([scene.classes for scene in scenes]), minlength=3)
    assert (counts / counts.sum() > 0.22).all()
    grey = sum(np.ptp(np.asarray(scene.image), axis=2).max() == 0 for scene in scenes)
    assert grey > 0.25 * SCENES


def test_boxes_lie_in_images_of_many_shapes(scenes: list[Scene]) -> None:
    assert len({scene.image.size for scene in scenes}) >= 7
    for scene in scenes:
        width, height = scene.image.size
        assert abs(width * height / 320**2 - 1) < 0.01
        assert scene.boxes.dtype == scene.classes.dtype == np.int64
        assert (scene.boxes[:, :2] >= 0).all()
        assert (scene.boxes[:, 2:] <= (width, height)).all()
        assert (scene.boxes[:, 2:] > scene.boxes[:, :2]).all()


@pytest.mark.parametrize(("label", "low", "high"), [(QR_CODE, 0.06, 1.3), (BARCODE, 0.12, 1.3)])
def test_sizes_of_codes(label: int, low: float, high: float, sheets: list[Sheet]) -> None:
    """Evenly on a logarithmic scale, of a frame of 320 pixels."""
    sizes = []
    for sheet in sheets:
        if label in sheet.classes:
            mask = sheet.index == 1 + sheet.classes.index(label)
            rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
            sizes.append(max(np.ptp(rows) + 1, np.ptp(columns) + 1) * sheet.scale / 320)
    assert min(sizes) >= low * 0.97
    assert max(sizes) <= high * 1.03
    middle = (math.log(low) + math.log(high)) / 2
    assert abs(np.median(np.log(sizes)) - middle) < 0.3
    assert min(sizes) < low * 1.3
    assert max(sizes) > high * 0.8


def test_sizes_of_print(sheets: list[Sheet]) -> None:
    """The height of a line is that from ascenders to descenders, which not every line has."""
    heights = []
    for sheet in sheets:
        if set(sheet.classes) == {TEXT}:
            rows = np.flatnonzero((sheet.index == 1).any(1))
            heights.append((np.ptp(rows) + 1) / 320)
    assert 0.03 * 0.4 < min(heights) < 0.03
    assert 0.14 < max(heights) < 0.2 * 1.2


@pytest.mark.parametrize("name", barcodes.SYMBOLOGIES)
def test_symbologies(name: str) -> None:
    """Bars begin and end the code; the modules are as many as the standard says, where it says so."""
    symbology = barcodes.SYMBOLOGIES[name]
    encodings = [symbology.encode(np.random.default_rng(seed)) for seed in range(20)]
    assert len({modules for modules, _ in encodings}) == 20
    for modules, groups in encodings:
        assert set(modules) <= set("01G")
        assert "0" not in (modules[0], modules[-1])
        assert all(groups)
        lengths = {"EAN-13": (95, 13), "UPC-A": (95, 12), "EAN-8": (67, 8)}
        assert (len(modules), sum(map(len, groups))) == lengths.get(
            name, (len(modules), sum(map(len, groups)))
        )


def test_add_on() -> None:
    """52495 by hand: 3 * (5 + 4 + 5) + 9 * (2 + 9) ends with 1, which the first and third digit, mirrored, tell."""
    digits = ("0111001", "0010011", "0011101", "0001011", "0110001")
    assert barcodes.encode_add_on("52495") == "01011" + "01".join(digits)


def test_fonts_and_photos_of_val_are_apart(maker: Codes, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: set[str] = set()

    def opening(function: Any) -> Any:
        def load(path: str, *arguments: Any) -> Any:
            opened.add(path)
            return function(path, *arguments)

        return load

    monkeypatch.setattr(ink, "load_size", opening(fonts.load_size))
    monkeypatch.setattr(codes, "load_photo", opening(photos.load_photo))
    files = []
    for is_val in (False, True):
        for seed in range(40):
            maker.draw(np.random.default_rng(seed), is_val=is_val)
        files.append(opened.copy())
        opened.clear()
    train, val = files
    assert train.isdisjoint(val)
    for kind in (".ttf", ".jpg"):
        assert any(path.endswith(kind) for path in train)
        assert any(path.endswith(kind) for path in val)


def test_folders(tmp_path: Path) -> None:
    """Photos and cut-outs of a user: a color that nothing else has is seen."""
    for name, mode, color in (("a", "RGB", (255, 0, 255)), ("b", "RGBA", (0, 255, 255, 255))):
        (tmp_path / name / "deep").mkdir(parents=True)
        for index in range(5):
            Image.new(mode, (900, 700), color).save(tmp_path / name / "deep" / f"{index}.png")
    maker = Codes(tmp_path / "a", tmp_path / "b", packaged_fonts())
    assert [len(paths) for paths in maker._photos] == [4, 1]
    magenta = cyan = 0
    for seed in range(40):
        pixels = np.asarray(maker.draw(np.random.default_rng(seed), is_val=False).image).astype(int)
        red, green, blue = pixels.reshape(-1, 3).T
        magenta += ((red - green > 120) & (blue - green > 120)).mean() > 0.1
        cyan += ((blue - red > 120) & (green - red > 120)).mean() > 0.005
    assert magenta > 5
    assert cyan > 5


def test_no_photo_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codes, "package_photos", tuple)
    maker = Codes(fonts=packaged_fonts())
    assert len(maker.draw(np.random.default_rng(0), is_val=True).image.getbands()) == 3


def test_machine_without_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of matplotlib, without those of symbols; without it, a sentence."""
    monkeypatch.setattr(fonts, "FONT_FOLDERS", ("/nowhere",))
    train, val = fonts.find_families()
    names = {Path(path).stem for family in (*train, *val) for path in family}
    assert {"DejaVuSans", "cmr10"} <= names
    assert names.isdisjoint({"cmex10", "cmsy10", "DejaVuSansDisplay", "STIXSizOneSymReg"})
    monkeypatch.setattr(fonts, "package_folders", lambda name: [])
    with pytest.raises(UsageError, match=r"fonts: expected .* found none under /nowhere"):
        fonts.find_families()


def test_few_fonts_are_warned_of() -> None:
    with pytest.warns(UserWarning, match=r"fonts: \d+ font families found; .* at least 20"):
        Codes(fonts=packaged_fonts())


@pytest.mark.parametrize("name", ["backgrounds", "distractors", "fonts"])
def test_folders_with_nothing_in_them(name: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("none")
    (tmp_path / "broken.ttf").write_text("none")
    folders: dict[str, Path] = {"fonts": packaged_fonts(), name: tmp_path}
    with pytest.raises(UsageError, match=rf"{name}: expected .* found none under "):
        Codes(**folders)


def test_a_photo_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"none")
    maker = Codes(tmp_path, fonts=packaged_fonts())
    with pytest.raises(UsageError, match=r"a\.jpg: expected an image that can be read"):
        [maker.draw(np.random.default_rng(seed), is_val=False) for seed in range(20)]


@pytest.mark.parametrize("package", ["segno", "barcode"])
def test_a_package_is_missing(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=r"segno and python-barcode.*rtdetr-ops\[demo\]"):
        Codes(fonts=packaged_fonts())


def test_sequence(maker: Codes) -> None:
    """The pairs of an index are the same each time, also from the end and in a slice, and other than those of val."""
    sequence = SceneSequence(maker, 5, seed=1)
    image, target = sequence[3]
    for again, same in (sequence[3], sequence[-2], sequence[2:4][1]):
        assert again.tobytes() == image.tobytes()
        assert (
            same["boxes"].tolist()
            == target["boxes"].tolist()
            == sequence.target(3)["boxes"].tolist()
        )
    assert SceneSequence(maker, 5, 1, is_val=True)[3][0].tobytes() != image.tobytes()
    assert SceneSequence(maker, 5, 2)[3][0].tobytes() != image.tobytes()
    with pytest.raises(IndexError):
        sequence[5]
    with pytest.raises(UsageError, match="length: expected at least 1, got 0"):
        SceneSequence(maker, 0)


def test_sequence_is_data_to_train_on(maker: Codes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each scene is drawn once for its boxes; workers that are spawned draw the same batches."""
    drawn = []
    draw = Codes.draw
    monkeypatch.setattr(
        Codes, "draw", lambda *words, **flags: drawn.append(1) or draw(*words, **flags)
    )
    splits = load_data(
        {"train": SceneSequence(maker, 12), "val": SceneSequence(maker, 12, is_val=True)},
        names=maker.names,
    )
    assert len(drawn) == 24
    assert list(splits.report) == []
    monkeypatch.undo()
    assert splits.train is not None
    dataset = DetectionDataset(splits.train, 64)
    batches = [[0, 5], [7, 11]]
    own, other = (
        list(make_loader(dataset, batches, workers=count, start_method=method))
        for count, method in ((0, None), (1, "spawn"))
    )
    for first, second in zip(own, other, strict=True):
        assert (first["pixel_values"] == second["pixel_values"]).all()


def test_sequence_that_does_not_tell_sizes() -> None:
    class Nameless(ImagesOnDemand):
        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> Any:
            raise AssertionError("an image was asked for")

        def target(self, index: int) -> dict[str, Any]:
            return {"boxes": [[0, 0, 4, 4]], "class_labels": [0]}

    with pytest.raises(DataError, match=r'item 0: no "size" \(height, width\) of its image'):
        load_data({"train": Nameless()})


def test_targets_are_not_sent_to_workers(maker: Codes) -> None:
    sequence = SceneSequence(maker, 3)
    before = len(pickle.dumps(sequence))
    sequence.target(0)
    assert len(pickle.dumps(sequence)) == before
    assert pickle.loads(pickle.dumps(sequence))[1][0].tobytes() == sequence[1][0].tobytes()
