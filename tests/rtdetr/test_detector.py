# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from photos import drawn, photo
from PIL import Image
from tiny_detector import NAMES, SIDE, save_tiny, tiny_config, tiny_detector, tiny_model

from rtdetr.detector import RTDETR
from rtdetr.errors import DataError, ModelError, RTDetrError, UsageError
from rtdetr.images.sources import Unreadable
from rtdetr.processing.image_processor import RTDetrImageProcessor
from rtdetr.results.detections import Detections
from rtdetr.weights import save_original

THRESHOLD = 0.25


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Threads cost a model this small more than they give, above all on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def detector() -> RTDETR:
    return tiny_detector()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index in range(3):
        path = tmp_path / "images" / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        drawn(40 + 30 * index, 60, seed=index).save(path)
    return tmp_path / "images"


def assert_same(one: Detections, other: Detections, tolerance: float = 0.0) -> None:
    np.testing.assert_array_equal(one.labels, other.labels)
    np.testing.assert_allclose(one.scores, other.scores, rtol=0, atol=tolerance)
    np.testing.assert_allclose(one.xyxy, other.xyxy, rtol=0, atol=tolerance * 600)


def test_one_image_is_one_detections(detector: RTDETR) -> None:
    found = detector(photo(), threshold=THRESHOLD)
    assert isinstance(found, Detections)
    assert 3 <= len(found) < 20
    width, height = photo().size
    assert found.image_size == (height, width)
    assert found.names == NAMES
    assert (found.scores > THRESHOLD).all()
    assert (np.diff(found.scores) <= 0).all()
    assert found.xyxy.min() >= 0
    assert (found.xyxy <= [width, height, width, height]).all()


def test_same_image_in_any_form(detector: RTDETR, tmp_path: Path) -> None:
    photo().save(tmp_path / "a.png")
    pixels = np.asarray(photo())
    first = torch.from_numpy(pixels.transpose(2, 0, 1).copy())
    wanted = detector(photo(), threshold=THRESHOLD)
    for form in (
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
        pixels,
        pixels / 255.0,
        first,
        first / 255,
    ):
        assert_same(detector(form, threshold=THRESHOLD), wanted)
    assert_same(detector(pixels[:, :, ::-1], threshold=THRESHOLD, color="bgr"), wanted)


def test_result_is_that_of_the_parts(detector: RTDETR) -> None:
    processor = detector.processor
    inputs = processor(photo(), return_tensors="pt")
    with torch.inference_mode():
        outputs = detector.model(**inputs)
    width, height = photo().size
    wanted = processor.post_process_object_detection(outputs, THRESHOLD, [(height, width)])[0]
    found = detector(photo(), threshold=THRESHOLD)
    assert np.array_equal(found.labels, wanted["labels"])
    assert np.array_equal(found.scores, wanted["scores"])
    inside = wanted["boxes"].clamp(min=0).minimum(torch.tensor([width, height, width, height]))
    assert np.array_equal(found.xyxy, inside)


def test_a_model_that_returns_tuples_detects_too(detector: RTDETR) -> None:
    expected = detector(photo(), threshold=THRESHOLD)
    model = tiny_model()
    model.config.return_dict = False
    other = tiny_detector()
    other.model = model
    assert np.array_equal(other(photo(), threshold=THRESHOLD).xyxy, expected.xyxy)
    assert np.array_equal(other.optimize()(photo(), threshold=THRESHOLD).labels, expected.labels)


def test_many_images_are_a_list(detector: RTDETR, folder: Path) -> None:
    names = [str(folder / f"{index}.png") for index in range(3)]
    for many in (folder, str(folder), f"{folder}/*.png", names, tuple(names)):
        found = detector(many)
        assert isinstance(found, list)
        assert [one.source for one in found] == names
    assert isinstance(detector([photo()]), list)
    assert len(detector(np.zeros((2, 40, 50, 3), np.uint8))) == 2


@pytest.mark.parametrize("batch", [2, 3, 8])
def test_batches_find_the_same(detector: RTDETR, folder: Path, batch: int) -> None:
    one_by_one = detector(folder, threshold=THRESHOLD)
    together = detector(folder, threshold=THRESHOLD, batch=batch)
    assert len(together) == 3
    for one, other in zip(one_by_one, together, strict=True):
        assert_same(one, other, tolerance=1e-5)


def test_images_differ(detector: RTDETR, folder: Path) -> None:
    first, second, _ = detector(folder, threshold=0.0)
    assert not np.allclose(first.scores, second.scores, atol=1e-3)


def test_classes_and_threshold(detector: RTDETR) -> None:
    everything = detector(photo(), threshold=0.0)
    assert set(everything.labels.tolist()) == {0, 1, 2}
    some = detector(photo(), threshold=0.0, classes=["bus", 2])
    assert_same(some, everything.only("bus", "dog"))
    assert_same(detector(photo(), threshold=0.3), everything.above(0.3))


def test_imgsz(detector: RTDETR) -> None:
    assert detector.imgsz == (SIDE, SIDE)
    assert detector.prepare([photo()], 64).shape == (1, 3, 64, 64)
    assert detector.prepare([photo()], (64, 128)).shape == (1, 3, 64, 128)
    found = detector(photo(), imgsz=(64, 128), threshold=0.0)
    width, height = photo().size
    assert found.image_size == (height, width)
    assert found.xyxy[:, 2].max() > width / 2


OPTION_ERRORS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "imgsz": ({"imgsz": 100}, UsageError, r"imgsz: expected multiples of 32, got 100\. Try 96"),
    "imgsz pair": ({"imgsz": (64, 70)}, UsageError, r"Try \(64, 64\)"),
    "imgsz kind": ({"imgsz": 0}, UsageError, "imgsz: expected a whole number"),
    "threshold": (
        {"threshold": 50},
        UsageError,
        r"threshold: expected a score within 0\.\.1, got 50",
    ),
    "batch": ({"batch": 0}, UsageError, "batch: expected at least 1"),
    "class": ({"classes": ["buss"]}, UsageError, r"no class 'buss'.*Did you mean \"bus\""),
    "classes": ({"classes": "bus"}, UsageError, "classes: expected a list"),
    "keyword": (
        {"treshold": 0.3},
        TypeError,
        r"no argument 'treshold'.*Did you mean \"threshold\"",
    ),
}


@pytest.mark.parametrize("case", OPTION_ERRORS)
@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
def test_option_errors(detector: RTDETR, case: str, many: bool) -> None:
    options, kind, message = OPTION_ERRORS[case]
    with pytest.raises(kind, match=message):
        detector([photo()] if many else photo(), **options)


def test_signature_shows_in_help() -> None:
    assert "threshold" in inspect.signature(RTDETR.__call__).parameters
    assert "weights" in inspect.signature(RTDETR).parameters
    with pytest.raises(TypeError, match=r"no argument 'divice'.*Did you mean \"device\""):
        RTDETR("rtdetrv2_r18vd", divice="cpu")  # type: ignore[call-arg]


def test_unreadable_image(detector: RTDETR, folder: Path) -> None:
    (folder / "1.png").write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match=r"1\.png: not a readable image"):
        detector(folder / "1.png")
    with pytest.raises(DataError, match=r"1\.png: not a readable image.*stream goes on"):
        detector(folder)
    found = list(detector.stream(folder, batch=2))
    assert [type(one) for one in found] == [Detections, Unreadable, Detections]
    assert [Path(one.source).name for one in found if isinstance(one, Detections)] == [
        "0.png",
        "2.png",
    ]


def test_stream_is_lazy_and_can_be_limited(detector: RTDETR) -> None:
    stream = detector.stream([photo()] * 1000)
    assert isinstance(stream, Iterator)
    assert isinstance(next(stream), Detections)
    assert len(list(detector.stream([photo()] * 5, limit=2))) == 2


def test_exif_is_honored(detector: RTDETR, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    photo().save(tmp_path / "turned.png", exif=exif)
    found = detector(tmp_path / "turned.png", threshold=THRESHOLD)
    assert found.image is not None
    assert found.image_size == (photo().width, photo().height)
    assert_same(found, detector(photo().transpose(Image.Transpose.ROTATE_270), threshold=THRESHOLD))


def test_video(detector: RTDETR, tmp_path: Path) -> None:
    pytest.importorskip("av")
    from rtdetr.images.video import VideoWriter

    with VideoWriter(tmp_path / "clip.mp4") as writer:
        for index in range(5):
            writer.add(drawn(48, 64, seed=index))
    found = detector(tmp_path / "clip.mp4", batch=2, vid_stride=2)
    assert isinstance(found, Iterator)
    assert [one.source for one in found] == [f"{tmp_path}/clip.mp4#{index}" for index in (0, 2, 4)]


def test_bfloat16_finds_nearly_the_same(detector: RTDETR) -> None:
    half = tiny_detector().to(dtype="bfloat16")
    assert half.model.dtype == torch.bfloat16
    one, other = (made(photo(), threshold=0.0) for made in (detector, half))
    assert other.scores.dtype == other.xyxy.dtype == np.float32
    assert np.abs(np.sort(one.scores) - np.sort(other.scores)).max() < 0.05
    assert not np.array_equal(one.scores, other.scores)


def test_optimized_finds_the_same(detector: RTDETR, tmp_path: Path) -> None:
    fast = tiny_detector()
    assert not fast.is_optimized
    assert fast.optimize() is fast
    assert fast.is_optimized
    wanted = detector(photo(), threshold=THRESHOLD)
    assert_same(fast(photo(), threshold=THRESHOLD), wanted, tolerance=1e-3)
    assert_same(RTDETR(fast.save_pretrained(tmp_path / "m"))(photo(), threshold=THRESHOLD), wanted)
    fast.to(dtype="bfloat16")
    assert fast.is_optimized
    assert len(fast(photo(), threshold=0.0)) == len(detector(photo(), threshold=0.0))


def test_to(detector: RTDETR) -> None:
    moved = tiny_detector()
    assert moved.to("cpu", torch.bfloat16) is moved
    assert moved.to(torch.float32).model.dtype == torch.float32
    with pytest.raises(UsageError, match=r"dtype: expected \"auto\", .*float64"):
        moved.to(dtype=torch.float64)
    with pytest.raises(UsageError, match=r"dtype: .*'bfloat17'.*Did you mean \"bfloat16\""):
        moved.to(dtype="bfloat17")
    with pytest.raises(UsageError, match=r"device: expected .*'gpu'"):
        moved.to("gpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="has CUDA")
@pytest.mark.parametrize("device", ["cuda", "cuda:1", 0, "0"])
def test_missing_cuda_is_said(device: str | int) -> None:
    with pytest.raises(RTDetrError, match=r"device cuda.*: this torch \(.*\) .* CUDA.*device cpu"):
        RTDETR("rtdetrv2_r18vd", weights=None, device=device)


def test_out_of_memory_is_said(detector: RTDETR, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(detector.model, "forward", full)
    with pytest.raises(
        RTDetrError, match=rf"out of memory at {SIDE}x{SIDE}, batch 2\. Try a smaller batch"
    ):
        detector([photo()] * 2, batch=2)


def test_save_and_load(detector: RTDETR, saved: Path) -> None:
    assert {path.name for path in saved.iterdir()} == {
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    }
    for source in (saved, str(saved)):
        loaded = RTDETR(source)
        assert not loaded.is_random
        assert loaded.names == NAMES
        assert loaded.imgsz == (SIDE, SIDE)
        assert not loaded.model.training
        assert_same(loaded(photo(), threshold=THRESHOLD), detector(photo(), threshold=THRESHOLD))
    assert RTDETR.from_pretrained(saved).title == str(saved)


def test_single_file_and_other_weights(detector: RTDETR, saved: Path) -> None:
    file = saved / "model.safetensors"
    wanted = detector(photo(), threshold=THRESHOLD)
    for loaded in (
        RTDETR(file, config=tiny_config()),
        RTDETR("mine", config=tiny_config(), weights=file),
        RTDETR(saved, weights=file),
    ):
        loaded.processor = detector.processor
        assert_same(loaded(photo(), threshold=THRESHOLD), wanted)


def test_random_weights_say_so() -> None:
    made = RTDETR("mine", config=tiny_config(), weights=None)
    assert made.is_random
    assert "random weights: detections mean nothing" in repr(made)
    assert "RANDOM WEIGHTS" in made.description
    assert "random" not in repr(tiny_detector())


def test_random_depends_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    one, same, other = (
        RTDETR.random("mine", seed=seed, config=tiny_config()) for seed in (3, 3, 4)
    )
    assert torch.equal(torch.get_rng_state(), state)
    weights = [made.model.state_dict()["model.enc_output.0.weight"] for made in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_own_processor() -> None:
    processor = RTDetrImageProcessor(size=(64, 96))
    made = RTDETR("mine", config=tiny_config(), weights=None, processor=processor)
    assert made.imgsz == (64, 96)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("rtdetrv2_r19vd", r"No model \"rtdetrv2_r19vd\"\. Did you mean \"rtdetrv2_r18vd\"\?"),
        ("rtdetrv2-q", r"No model \"rtdetrv2-q\"\. Did you mean \"rtdetrv2-.\"\?"),
        ("no/such/folder.pth", r"no/such/folder\.pth: no such file"),
        (Path("nothing"), "nothing: no such file"),
    ],
    ids=str,
)
def test_unknown_models(source: str | Path, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        RTDETR(source)


def test_offline_error_names_the_fix(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    # One from the hub, one whose file lies elsewhere, and one of no preset.
    for source in ("rtdetrv2_r18vd", "rtdetrv2_r50vd_m", "someone/something"):
        with pytest.raises(ModelError) as caught:
            RTDETR(source)
        wanted = f"Could not download {source} (not in the cache, and HF_HUB_OFFLINE is set). P"
        assert str(caught.value).startswith(wanted)


def test_unfit_checkpoint(tmp_path: Path) -> None:
    torch.save({"model": {"decoder.integral.project": torch.zeros(3)}}, tmp_path / "best.pth")
    with pytest.raises(ModelError, match=r"best\.pth"):
        RTDETR(tmp_path / "best.pth")
    (tmp_path / "bad.pth").write_bytes(b"nothing of the kind")
    with pytest.raises(ModelError, match=r"bad\.pth"):
        RTDETR(tmp_path / "bad.pth")
    with pytest.raises(ModelError, match=f"{tmp_path.name}: found neither"):
        RTDETR(tmp_path)


def test_one_unreadable_image_is_its_own_error(detector: RTDETR, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no\.png: no such file$"):
        detector(tmp_path / "no.png")


def test_a_wrong_class_is_an_error_of_the_call(detector: RTDETR) -> None:
    for source in ([], "clip.mp4", [photo()]):
        with pytest.raises(UsageError, match="no class 'nope'"):
            detector(source, classes=["nope"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d: d(photo(), treshold=0.3), r"RTDETR.__call__ .*'treshold'.*\"threshold\""),
        (lambda d: d.stream([], limti=3), r"RTDETR.stream .*'limti'.*\"limit\""),
        (lambda d: d(sorce=photo()), r"RTDETR.__call__ .*'sorce'.*\"source\""),
    ],
    ids=["call", "stream", "source"],
)
def test_misspelt_keywords_are_answered_by_the_function(
    detector: RTDETR, call: Callable[[RTDETR], Any], message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        call(detector)


def test_each_result_has_its_own_names(detector: RTDETR) -> None:
    first, second = detector([photo(), photo()], threshold=0)
    assert first.names == second.names
    assert first.names is not second.names


def test_classes_of_an_original_checkpoint_are_named_by_the_caller(tmp_path: Path) -> None:
    save_original(tiny_model(), tmp_path / "best.pth")
    path = tmp_path / "best.pth"
    assert RTDETR(path).names == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
    for names in (["cat", "dog", "bird"], {0: "cat", 1: "dog", 2: "bird"}):
        detector = RTDETR(path, names=names)
        assert detector.names == {0: "cat", 1: "dog", 2: "bird"}
        assert RTDETR(detector.save_pretrained(tmp_path / "saved")).names == detector.names
    for wrong, message in ((["cat"], "got 1 names"), ("cat", "got 'cat'")):
        with pytest.raises(UsageError, match=rf"^names: expected 3, one for each class, {message}"):
            RTDETR(path, names=wrong)
