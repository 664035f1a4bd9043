# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from command import Command
from photos import drawn, photo
from PIL import Image
from safetensors.torch import load_file
from tiny_detector import NAMES, SIDE, save_tiny, tiny_detector

from rtdetr.cli import main
from rtdetr.cli.benchmark import measure
from rtdetr.cli.predict_outputs import CocoImageIds
from rtdetr.coco import COCO_IDS, COCO_NAMES
from rtdetr.images.sources import ImageSource
from rtdetr.weights import save_checkpoint

CONF = ("--conf", "0.25")


@pytest.mark.parametrize(
    "arguments", [["--help"], ["-h"], ["predict", "-h"], ["models"], ["--version"]], ids=" ".join
)
def test_help_does_not_import_torch(arguments: list[str]) -> None:
    heavy = {"torch", "numpy", "PIL", "tqdm", "huggingface_hub", "transformers", "cv2"}
    program = (
        "import atexit, os, sys; from rtdetr.cli import main; "
        f"atexit.register(lambda: {heavy} & set(sys.modules) and os._exit(99)); "
        f"sys.argv = ['rtdetr', *{arguments}]; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_runs_as_a_module_without_control_codes(model: Path, tmp_path: Path) -> None:
    photo().save(tmp_path / "a.png")
    command = [sys.executable, "-m", "rtdetr", "predict", "a.png", "a.png", "--model", str(model)]
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert "2 images" in done.stdout
    assert done.stderr == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("flags", [[], ["--json"]], ids=str)
def test_a_full_disk_behind_stdout_is_said(flags: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "rtdetr", "models", *flags],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == "rtdetr: standard output: no space left on device\n"


def run_with(environment: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    root = str(Path(__file__).parents[3])
    return subprocess.run(
        [sys.executable, "-m", "rtdetr", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": root, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("name", ["bogus", "cuda"])
@pytest.mark.parametrize("option", ["--json", "--save"])
def test_attention_backend_that_cannot_run_here(
    model: Path, tmp_path: Path, name: str, option: str
) -> None:
    drawn(40, 50).save(tmp_path / "a.png")
    words = ("predict", tmp_path / "a.png", "--model", model, "--device", "cpu", option)
    done = run_with({"RTDETR_OPS_BACKEND": name}, *words, "--out", tmp_path / "out")
    assert done.returncode == 2
    wanted = r"rtdetr: RTDETR_OPS_BACKEND: expected .*\breference\b.* here, got '" + name + "'\n"
    assert re.fullmatch(wanted, done.stderr)
    assert done.stdout == ""
    assert not (tmp_path / "out").exists()


COMPLETIONS = {
    "command": ("rtdetr pre", 1, "predict"),
    "option": ("rtdetr predict --thr", 2, "--threshold"),
    "model": ("rtdetr info rtdetrv2_r18", 2, "rtdetrv2_r18vd"),
}


@pytest.mark.parametrize("case", COMPLETIONS)
def test_shell_completion(case: str) -> None:
    words, index, completed = COMPLETIONS[case]
    environment = {"COMP_WORDS": words, "COMP_CWORD": str(index)}
    done = run_with({**environment, "_RTDETR_COMPLETE": "complete_bash"})
    assert completed in done.stdout.split()
    script = run_with({"_RTDETR_COMPLETE": "source_bash"}).stdout
    assert "complete -o default -F _rtdetr_completion rtdetr" in script


def test_every_command_has_help(rtdetr: Command) -> None:
    for command in ("predict", "models", "info", "convert", "benchmark", "checks"):
        assert command in rtdetr("-h").out
        assert rtdetr(command, "-h").code == 0


def test_predict_a_folder(rtdetr: Command, model: Path, folder: Path) -> None:
    result = rtdetr("predict", folder, "--model", model, *CONF)
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert re.match(
        rf"model .*model  3 classes  {SIDE}x{SIDE}  .*float32  attention: \w+", lines[0]
    )
    found = tiny_detector()(folder, threshold=0.25)
    for line, one in zip(lines[1:4], found, strict=True):
        assert line.startswith(one.source)
        assert one.summary in line
        assert re.search(r"\d\.\d ms$", line)
    total = sum(map(len, found))
    assert (
        lines[4]
        == f"3 images, {total} objects -> runs/predict/  (annotated copies, predictions.json)"
    )
    written = sorted(path.name for path in Path("runs/predict").iterdir())
    assert written == ["0.png", "1.png", "2.png", "predictions.json"]
    assert json.loads(Path("runs/predict/predictions.json").read_text()) == [
        one.to_dict() for one in found
    ]
    with Image.open("runs/predict/1.png") as image:
        assert np.array_equal(np.asarray(image), np.asarray(found[1].plot()))


def test_results_of_another_run_stay(rtdetr: Command, model: Path, folder: Path) -> None:
    for number in (1, 2, 3):
        result = rtdetr("predict", folder / "0.png", "--model", model)
        assert f"-> runs/predict{'' if number == 1 else f'-{number}'}/" in result.out
    before = Path("runs/predict-2/0.png").read_bytes()
    again = rtdetr(
        "predict", folder / "0.png", "--model", model, "--out", "runs/predict-2", "--overwrite"
    )
    assert "-> runs/predict-2/" in again.out
    assert Path("runs/predict-2/0.png").read_bytes() == before


def test_sources_of_one_name_do_not_share_a_file(
    rtdetr: Command, model: Path, tmp_path: Path
) -> None:
    names = ["a/x.png", "b/x.png", "b/X.PNG", "c/x.jpg", "c/x.bmp", "c/x-2.png"]
    for index, name in enumerate(names):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        drawn(40, 50 + index).save(tmp_path / name)
    result = rtdetr("predict", *names, "--model", model, "--format", "image")
    assert result.code == 0
    sizes = set()
    for path in Path("runs/predict").iterdir():
        with Image.open(path) as image:
            sizes.add(image.width)
    assert sizes == {50 + index for index in range(len(names))}


def test_formats(rtdetr: Command, model: Path, folder: Path) -> None:
    rtdetr("predict", folder, "--model", model, "--format", "coco", *CONF)
    assert [path.name for path in Path("runs/predict").iterdir()] == ["predictions_coco.json"]
    entries = json.loads(Path("runs/predict/predictions_coco.json").read_text())
    assert {entry["image_id"] for entry in entries} == {0, 1, 2}
    found = tiny_detector()(folder / "2.png", threshold=0.25)
    first = found.to_coco(2)[0]
    assert first.items() <= next(one for one in entries if one["image_id"] == 2).items()


def test_coco_ids() -> None:
    by_name = dict(zip(COCO_NAMES, COCO_IDS, strict=True))
    known = {
        "person": 1,
        "stop sign": 13,
        "cat": 17,
        "backpack": 27,
        "bottle": 44,
        "toilet": 70,
        "toothbrush": 90,
    }
    assert {name: by_name[name] for name in known} == known


def test_coco_image_ids() -> None:
    def ids(*names: str) -> list[int]:
        numbers = CocoImageIds.of([ImageSource(name, name) for name in names])
        return [numbers.next(name) for name in names]

    assert ids("val/000000039769.jpg", "val/7.jpg") == [39769, 7]
    assert ids("a.jpg", "7.jpg") == [1, 2]
    assert ids("a/7.jpg", "b/007.jpg") == [1, 2]
    assert ids("a/7.jpg", "b/\u0667.jpg") == [1, 2]


def test_no_save(rtdetr: Command, model: Path, folder: Path, tmp_path: Path) -> None:
    result = rtdetr("predict", folder, "--model", model, "--no-save")
    assert result.out.splitlines()[-1].endswith("objects")
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_json_is_alone_on_stdout(rtdetr: Command, model: Path, folder: Path) -> None:
    (folder / "1.png").write_bytes(b"nothing of the kind")
    result = rtdetr("predict", folder, "--model", model, "--json", "--no-save", *CONF)
    assert result.code == 3
    found = tiny_detector()([folder / "0.png", folder / "2.png"], threshold=0.25)
    assert result.json["results"] == [one.to_dict() for one in found]
    assert result.json["random_weights"] is False
    assert [Path(one["source"]).name for one in result.json["failed"]] == ["1.png"]
    assert "not a readable image" in result.json["failed"][0]["error"]


def test_unreadable_images_are_reported_and_the_rest_goes_on(
    rtdetr: Command, model: Path, folder: Path
) -> None:
    (folder / "1.png").write_bytes(b"nothing of the kind")
    (folder.parent / "empty").mkdir()
    result = rtdetr("predict", "missing.jpg", folder, "empty", "--model", model, "--batch", 2)
    assert result.code == 3
    errors = result.err.splitlines()
    assert errors == [
        "skipped: missing.jpg: no such file",
        "skipped: empty: no images or videos there",
        f"skipped: {folder}/1.png: not a readable image: its format is not known",
    ]
    assert "2 images" in result.out
    assert "3 could not be read -> runs/predict/" in result.out
    assert sorted(path.name for path in Path("runs/predict").iterdir()) == [
        "0.png",
        "2.png",
        "predictions.json",
    ]


def test_options_reach_the_detector(rtdetr: Command, model: Path, folder: Path) -> None:
    arguments = ("predict", folder, "--model", model, "--json", "--no-save")
    options = (
        "--conf",
        0,
        "--classes",
        "bus, dog",
        "--imgsz",
        "64,128",
        "--limit",
        2,
        "--batch",
        3,
    )
    result = rtdetr(*arguments, *options)
    wanted = tiny_detector()(
        [folder / "0.png", folder / "1.png"], threshold=0, classes=["bus", "dog"], imgsz=(64, 128)
    )
    assert [len(one["objects"]) for one in result.json["results"]] == [len(one) for one in wanted]
    for got, one in zip(result.json["results"], wanted, strict=True):
        boxes = [entry["box"] for entry in got["objects"]]
        np.testing.assert_allclose(boxes, one.xyxy, atol=1e-2)


def test_recursive_and_glob(rtdetr: Command, model: Path, folder: Path) -> None:
    (folder / "deep").mkdir()
    drawn(40, 50).save(folder / "deep" / "9.png")
    options = ("--model", model, "--json", "--no-save")
    assert len(rtdetr("predict", folder, *options).json["results"]) == 3
    assert len(rtdetr("predict", folder, "--recursive", *options).json["results"]) == 4
    assert len(rtdetr("predict", f"{folder}/**/*.png", *options).json["results"]) == 4


def test_other_weights(rtdetr: Command, model: Path, folder: Path) -> None:
    options = ("--model", model, "--weights", model / "model.safetensors", "--json", "--no-save")
    result = rtdetr("predict", folder / "0.png", *options, *CONF)
    assert result.json["results"] == [tiny_detector()(folder / "0.png", threshold=0.25).to_dict()]


def test_random_weights_say_so(rtdetr: Command, model: Path, folder: Path) -> None:
    arguments = ("predict", folder / "0.png", "--model", model, "--random-weights", "--no-save")
    assert "RANDOM WEIGHTS: detections mean nothing" in rtdetr(*arguments).out
    result = rtdetr(*arguments, "--json")
    assert result.json["random_weights"] is True
    assert result.err == "random weights: detections mean nothing\n"


def test_video(rtdetr: Command, model: Path, tmp_path: Path) -> None:
    pytest.importorskip("av")
    from rtdetr.images.video import VideoWriter, read_video, video_info

    with VideoWriter(tmp_path / "clip.mp4", rate=10) as writer:
        for index in range(6):
            writer.add(drawn(48, 64, seed=index))
    drawn(40, 50).save("a.png")
    (tmp_path / "bad.mp4").write_bytes(b"nothing of the kind")
    result = rtdetr("predict", "bad.mp4", "a.png", "clip.mp4", "--vid-stride", 2, "--model", model)
    assert result.code == 3
    assert result.err.startswith("skipped: bad.mp4: not a readable video")
    assert "4 images" in result.out
    made = Path("runs/predict/clip.mp4")
    assert len(list(read_video(made))) == 3
    assert video_info(made).rate == 5
    sources = [
        one["source"] for one in json.loads(Path("runs/predict/predictions.json").read_text())
    ]
    assert sources == ["a.png", "clip.mp4#0", "clip.mp4#2", "clip.mp4#4"]
    words = ("clip.mp4", "a.png", "clip.mp4", "--vid-stride", 3)
    ordered = rtdetr("predict", *words, "--model", model, "--no-save", "--json").json["results"]
    assert [one["source"] for one in ordered] == [
        *("clip.mp4#0", "clip.mp4#3", "a.png", "clip.mp4#0", "clip.mp4#3")
    ]
    limited = rtdetr(
        "predict", "a.png", "clip.mp4", "--limit", 3, "--model", model, "--no-save", "--json"
    )
    assert len(limited.json["results"]) == 3


USAGE_ERRORS = {
    "flag": (["predict", "a.png", "--modle", "x"], "--model"),
    "command": (["predcit", "a.png"], "predict"),
    "no source": (["predict"], "SOURCE"),
    "format": (["predict", "a.png", "--format", "imgae"], 'Did you mean "image"'),
    "imgsz": (["predict", "a.png", "--imgsz", "big"], "--imgsz: expected"),
    "imgsz stride": (["predict", "a.png", "--model", "{model}", "--imgsz", "100"], "Try 96"),
    "class": (
        ["predict", "a.png", "--model", "{model}", "--classes", "buss"],
        'Did you mean "bus"',
    ),
    "threshold": (
        ["predict", "a.png", "--model", "{model}", "--conf", "50"],
        "within 0..1, got 50",
    ),
    "threshold by another name": (
        ["predict", "a.png", "--model", "{model}", "--threshold", "1.5"],
        "--conf: expected a score within 0..1, got 1.5",
    ),
    "threshold misspelt": (["predict", "a.png", "--treshold", "0.5"], "--threshold"),
    "no format": (["predict", "a.png", "--format", ""], "--format: expected words"),
    "no classes": (["predict", "a.png", "--classes", ","], "--classes: expected words"),
    "unknown class": (
        ["predict", "a.png", "--model", "{model}", "--classes", "tree"],
        "--classes: no class 'tree'",
    ),
    "no model": (["predict", "a.png", "--model", ""], "expected a word, got an empty one"),
    "no weights": (["predict", "a.png", "--weights", ""], "expected a word, got an empty one"),
    "nothing to describe": (["info", ""], "expected a word, got an empty one"),
    "nothing to time": (["benchmark", ""], "expected a word, got an empty one"),
    "nothing to convert": (["convert", "", "out"], "expected a word, got an empty one"),
    "no config": (["convert", "x", "y", "--config", ""], "expected a word, got an empty one"),
    "empty source": (["predict", ""], 'SOURCE: expected a path or a URL, got ""'),
    "font": (
        ["predict", "a.png", "--font", "none.ttf"],
        "font: expected a TrueType file, got none",
    ),
    "dtype": (["predict", "a.png", "--model", "{model}", "--dtype", "fp8"], "dtype: expected"),
    "weights twice": (
        ["predict", "a.png", "--weights", "x", "--random-weights"],
        "exclude each other",
    ),
    "convert target": (["convert", "{model}", "out.onnx"], "expected a directory or a .pth"),
}


@pytest.mark.parametrize("case", USAGE_ERRORS)
def test_usage_errors(rtdetr: Command, model: Path, case: str) -> None:
    drawn(40, 50).save("a.png")
    arguments, message = USAGE_ERRORS[case]
    result = rtdetr(*(word.format(model=model) for word in arguments))
    assert result.code == 2
    assert message in result.err
    assert "Traceback" not in result.err
    assert not result.out


MODEL_ERRORS = {
    "preset": ("rtdetr-v2-small", 'No model "rtdetr-v2-small".'),
    "typo": ("rtdetrv2_r18", 'Did you mean "rtdetrv2_r18vd"? See: rtdetr models'),
    "file": ("none.pth", "none.pth: no such file"),
    "folder": ("images", "images: found neither model.safetensors"),
}


@pytest.mark.parametrize("case", MODEL_ERRORS)
@pytest.mark.parametrize("command", ["predict", "info", "benchmark", "convert"])
def test_model_errors(rtdetr: Command, folder: Path, case: str, command: str) -> None:
    name, message = MODEL_ERRORS[case]
    arguments = {
        "predict": ("predict", folder / "0.png", "--model", name),
        "convert": ("convert", name, "new"),
    }.get(command, (command, name))
    result = rtdetr(*arguments)
    assert result.code == 4
    assert message in result.err
    assert len(result.err.splitlines()) == 1


def test_missing_extra(
    rtdetr: Command, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "clip.mp4").touch()
    result = rtdetr("predict", "clip.mp4", "--model", model)
    assert result.code == 2
    assert result.err == 'rtdetr: Video needs the package av: pip install "rtdetr-ops[video]"\n'


@pytest.mark.skipif(torch.cuda.is_available(), reason="has CUDA")
def test_missing_cuda(rtdetr: Command, model: Path, folder: Path) -> None:
    result = rtdetr("predict", folder, "--model", model, "--device", "cuda")
    assert result.code == 1
    assert re.match(r"rtdetr: device cuda: this torch \(.*\) .* CUDA.*", result.err)


def test_unexpected_errors_are_one_line_and_debug_shows_them(
    rtdetr: Command, model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("rtdetr.detector.RTDETR.stream", broken)
    result = rtdetr("predict", folder, "--model", model)
    assert result.code == 1
    assert result.err == "rtdetr: unexpected RuntimeError: a bug (RTDETR_DEBUG=1 shows where)\n"
    monkeypatch.setenv("RTDETR_DEBUG", "1")
    monkeypatch.setattr(sys, "argv", ["rtdetr", "predict", str(folder), "--model", str(model)])
    with pytest.raises(RuntimeError, match="a bug"):
        main()


def test_models(rtdetr: Command) -> None:
    text = rtdetr("models").out
    assert re.search(
        r"rtdetrv2_r18vd +rtdetrv2-s +48\.1 +65\.1 +20M +bilinear +PekingU/rtdetr_v2_r18vd", text
    )
    rows = {row["name"]: row for row in rtdetr("models", "--json").json}
    assert rows["rtdetrv2_r50vd_dsp"]["sampling"] == "discrete"
    assert rows["rtdetrv2_r101vd"]["ap"] == 54.3
    assert re.search(r"rtdetrv2_tiny +3M +bilinear +none published", text)
    assert rows["rtdetrv2_tiny"]["ap"] is None


def test_info_of_a_published_model_needs_no_download(rtdetr: Command) -> None:
    found = rtdetr("info", "rtdetrv2-s", "--json").json
    assert found["parameters"] == 20_184_464
    assert found["points"] == [4, 4, 4]
    assert found["names"] == list(COCO_NAMES)
    assert found["load_report"] is None
    text = rtdetr("info", "rtdetrv2_r18vd").out
    assert re.search(r"parameters +20,184,464", text)
    assert re.search(r"classes +person, .* \(80\)", text)


def test_info_of_a_directory_tells_how_weights_fitted(rtdetr: Command, model: Path) -> None:
    found = rtdetr("info", model, "--json").json
    assert found["names"] == ["person", "bus", "dog"]
    assert found["input"] == {"height": SIDE, "width": SIDE}
    assert "weights loaded" in found["load_report"]
    assert found["decoder_layers"] == 2


def test_one_file_is_enough_for_every_command(
    rtdetr: Command, tmp_path: Path, folder: Path
) -> None:
    detector = tiny_detector()
    detector.model.config.category_ids = (17, 3, 90)
    best = tmp_path / "best.safetensors"
    save_checkpoint(detector.model, best, detector.processor, dtype=torch.float16)
    described = rtdetr("info", best, "--json").json
    assert described["names"] == list(NAMES.values())
    assert described["category_ids"] == [17, 3, 90]
    assert described["input"] == {"height": SIDE, "width": SIDE}
    text = rtdetr("info", best).out
    assert re.search(r"classes \(ids\) +person \(17\), bus \(3\), dog \(90\)", text)
    out = tmp_path / "out"
    rtdetr("predict", folder, "--model", best, "--format", "coco", "--out", out, *CONF)
    results = json.loads((out / "predictions_coco.json").read_text())
    assert {result["category_id"] for result in results} <= {17, 3, 90}
    assert results


def test_info_of_an_input_that_depends_on_the_image(rtdetr: Command, tmp_path: Path) -> None:
    model = save_tiny(tmp_path / "edges")
    settings = {"size": {"shortest_edge": 300, "longest_edge": 400}}
    (model / "preprocessor_config.json").write_text(json.dumps(settings))
    expected = "shortest edge 300, longest at most 400"
    assert rtdetr("info", model, "--json").json["input"] == expected
    drawn(40, 50).save(tmp_path / "a.png")
    assert f"  {expected}  " in rtdetr("predict", "a.png", "--model", model).out


def test_convert_there_and_back(rtdetr: Command, model: Path) -> None:
    there = rtdetr("convert", model, "original.pth")
    assert there.code == 0
    assert "wrote original.pth" in there.out
    state = torch.load("original.pth", weights_only=True)
    assert "backbone.conv1.conv1_1.conv.weight" in state.get("model", state)
    assert rtdetr("convert", "original.pth", "back", "--config", model).code == 0
    wanted, got = (load_file(folder / "model.safetensors") for folder in (model, Path("back")))
    assert wanted.keys() == got.keys()
    for name, value in wanted.items():
        assert torch.equal(got[name], value), name


def test_convert_a_directory(rtdetr: Command, model: Path) -> None:
    result = rtdetr("convert", model, "copy")
    assert result.code == 0
    assert "wrote copy/  (config.json, model.safetensors, preprocessor_config.json)" in result.out
    again = rtdetr("convert", model, "copy")
    assert (again.code, again.err) == (
        2,
        "rtdetr: OUT: copy exists. Pass --overwrite to replace it.\n",
    )
    assert rtdetr("convert", model, "copy", "--overwrite").code == 0
    assert rtdetr("info", "copy", "--json").json["parameters"] > 0


@pytest.mark.parametrize("scope", ["--e2e", "--model-only"])
def test_benchmark(rtdetr: Command, model: Path, scope: str) -> None:
    options = ("--iters", 3, "--warmup", 1, "--batch", 2, "--imgsz", "64,96", scope)
    found = rtdetr("benchmark", model, *options, "--json").json
    assert 0 < found["p50_ms"] <= found["p95_ms"]
    assert (found["imgsz"], found["batch"], found["iters"]) == ([64, 96], 2, 3)
    assert found["attention"] in ("cuda", "triton", "cpu", "reference")
    text = rtdetr("benchmark", model, *options).out
    assert re.search(r"p50 \d+\.\d\d ms   p95 \d+\.\d\d ms   \d+\.\d images/s", text)
    assert ("network alone" in text) == (scope == "--model-only")


def test_benchmark_of_an_optimized_model(rtdetr: Command, model: Path) -> None:
    options = ("--iters", 2, "--warmup", 0, "--optimize", "--json")
    assert rtdetr("benchmark", model, *options).json["optimized"] is True


def test_measure_counts_runs() -> None:
    calls: list[int] = []
    assert len(measure(lambda: calls.append(1), "cpu", warmup=2, iters=5)) == 5
    assert len(calls) == 7


def test_median_of_an_even_number_of_runs_lies_between_the_middle_two(
    rtdetr: Command, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rtdetr.cli.benchmark.measure", lambda *_, **__: [4.0, 1.0, 3.0, 2.0])
    report = rtdetr("benchmark", model, "--json").json
    assert (report["p50_ms"], report["p95_ms"]) == (2.5, 3.85)
    assert report["images_per_s"] == 400


def test_checks(rtdetr: Command) -> None:
    found = rtdetr("checks", "--json").json
    assert found["versions"]["torch"] == torch.__version__
    assert any("yes, taken" in line for line in found["attention"]["cpu"])
    assert set(found["optional"]) >= {"av", "triton", "torchvision", "faster-coco-eval"}
    assert found["optional"]["faster-coco-eval"]["state"] == version("faster-coco-eval")
    text = rtdetr("checks").out
    assert f"torch {torch.__version__}" in text
    assert "attention on cpu" in text


def test_checks_tells_a_broken_package(rtdetr: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def fake_version(name: str) -> str:
        return "1.2.3"

    monkeypatch.setattr("rtdetr.cli.checks.version", fake_version)
    monkeypatch.setitem(sys.modules, "av", None)
    assert rtdetr("checks", "--json").json["optional"]["av"]["state"].startswith("1.2.3 BROKEN (")
