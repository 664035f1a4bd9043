# SPDX-License-Identifier: Apache-2.0
"""One source that cannot be read, or has an odd name, costs no other; outputs replace no source."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from command import Command
from photos import drawn, photo
from PIL import Image

from rtdetr.cli.output_folder import claim_folder

ROOT = Path(__file__).parents[3]
LATIN1 = os.fsdecode(b"2\xe9.png")


def run_in_process(
    *arguments: object, environment: dict[str, str] | None = None, **options: Any
) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "rtdetr", *map(str, arguments)]
    return subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
        capture_output=True,
        check=False,
        **options,
    )


def predictions(folder: str | Path = "runs/predict") -> list[dict[str, Any]]:
    text = (Path(folder) / "predictions.json").read_bytes().decode("utf-8")
    found: list[dict[str, Any]] = json.loads(text)
    return found


def write_clip(path: Path, *sizes: tuple[int, int]) -> None:
    pytest.importorskip("av")
    from rtdetr.images.video import VideoWriter

    with VideoWriter(path, rate=10) as writer:
        for index, (width, height) in enumerate(sizes):
            writer.add(drawn(height, width, seed=index))


def write_raw_clip(path: Path, size: tuple[int, int]) -> None:
    """Three frames of a size that other codecs may not have."""
    import av

    with av.open(str(path), mode="w") as container:
        stream = container.add_stream("rawvideo", rate=10)
        stream.width, stream.height, stream.pix_fmt = *size, "bgra"
        for _ in range(3):
            frame = av.VideoFrame.from_image(Image.new("RGB", size)).reformat(format="bgra")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def test_odd_sources_do_not_cost_the_others(rtdetr: Command, model: Path, folder: Path) -> None:
    drawn(40, 50).save(folder / LATIN1)
    drawn(40, 50).save("line\nbreak.png")
    os.mkfifo("pipe.jpg")
    odd = [
        *(
            "pipe.jpg",
            "x" * 300 + ".png",
            "http://[::1",
            "http://127.0.0.1:1/my image.jpg",
            "0\0.png",
        ),
        *(
            "ftp://127.0.0.1/a.png",
            "data:image/png;base64,aaaa",
            "\x1b[31mred.png",
            "rtsp://127.0.0.1:1/",
        ),
        *("http://127.0.0.1:1/人.png", "http://user:pa ss@127.0.0.1:1/a.png", "-"),
    ]
    sys.stdin = io.TextIOWrapper(io.BytesIO(b"no image"))
    try:
        result = rtdetr("predict", *odd, folder, "line\nbreak.png", "--model", model)
    finally:
        sys.stdin = sys.__stdin__
    assert result.code == 3
    skipped = result.err.splitlines()
    assert len(skipped) == len(odd), result.err
    assert all(line.startswith("skipped: ") for line in skipped)
    assert "\x1b" not in result.err
    assert f"5 images, {sum(len(one['objects']) for one in predictions())} objects" in result.out
    assert f"{len(odd)} could not be read" in result.out
    names = [one["source"] for one in predictions()]
    assert names == [
        *(f"{folder}/{name}" for name in ("0.png", "1.png", "2.png", r"2\xe9.png")),
        "line\nbreak.png",
    ]
    lines = [line for line in result.out.splitlines() if ".png" in line and "->" not in line]
    assert len(lines) == 5
    assert lines[-1].startswith(r"line\nbreak.png")
    assert (Path("runs/predict") / LATIN1).is_file()


ENCODINGS = {
    "ascii": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "latin1": {"PYTHONIOENCODING": "latin-1"},
}


@pytest.mark.parametrize("as_json", [True, False], ids=["json", "text"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_any_name_on_any_terminal(
    model: Path, tmp_path: Path, encoding: str, as_json: bool
) -> None:
    for name in (LATIN1, "é 人.png"):
        drawn(40, 50).save(tmp_path / name)
    arguments = ["predict", tmp_path, "--model", model, "--out", tmp_path / "out"]
    done = run_in_process(
        *arguments,
        *(["--json"] if as_json else []),
        environment=ENCODINGS[encoding],
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    wanted = [f"{tmp_path}/{name}" for name in (r"2\xe9.png", "é 人.png")]
    assert [one["source"] for one in predictions(tmp_path / "out")] == wanted
    if as_json:
        assert [one["source"] for one in json.loads(done.stdout)["results"]] == wanted
    elif encoding == "latin1":
        assert "é \\u4eba.png" in done.stdout.decode("latin-1")
    else:  # typer writes UTF-8 there
        assert "é 人.png" in done.stdout.decode()


def test_debugging_shows_the_cause_and_goes_on(
    rtdetr: Command, model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise AssertionError("a bug")

    (folder / "1.png").write_bytes(b"nothing of the kind")
    assert "Traceback" not in rtdetr("predict", folder, "--model", model, "--no-save").err
    monkeypatch.setenv("RTDETR_DEBUG", "1")
    result = rtdetr("predict", folder, "--model", model, "--no-save")
    assert result.code == 3
    assert "UnidentifiedImageError" in result.err
    assert "2 images" in result.out
    monkeypatch.setattr("rtdetr.images.io.upright", broken)
    assert "AssertionError: a bug" in rtdetr("predict", folder, "--model", model, "--no-save").err


def test_video_of_one_pixel(
    rtdetr: Command, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("av")
    write_raw_clip(tmp_path / "a.nut", (1, 48))
    drawn(40, 50).save("b.png")
    result = rtdetr("predict", "a.nut", "b.png", "--model", model)
    assert (result.code, result.err) == (0, "")
    assert "4 images" in result.out
    assert sorted(path.name for path in Path("runs/predict").iterdir()) == [
        *("a.mp4", "b.png", "predictions.json")
    ]


def test_copies_that_their_format_cannot_hold(rtdetr: Command, model: Path, tmp_path: Path) -> None:
    Image.new("RGB", (70_000, 2)).save(tmp_path / "a.bmp")
    drawn(40, 50).save("c.png")
    sources = ["a.bmp", "c.png"]
    if find_spec("av") is not None:
        write_raw_clip(tmp_path / "b.nut", (20_000, 2))
        sources.insert(1, "b.nut")
    result = rtdetr("predict", *sources, "--model", model)
    names = sorted(path.name for path in Path("runs/predict").iterdir())
    assert names == ["a.png", "c.png", "predictions.json"]
    assert [one["source"] for one in predictions()][-1] == "c.png"
    assert result.code == (3 if "b.nut" in sources else 0)
    assert "unexpected" not in result.err


def test_videos_of_folders_and_globs(rtdetr: Command, model: Path, folder: Path) -> None:
    write_clip(folder / "1.mp4", (64, 48), (64, 48))
    for source, count in ((folder, 5), (f"{folder}/*.mp4", 2), (f"{folder}/*", 5)):
        result = rtdetr("predict", source, "--model", model, "--json", "--no-save")
        assert result.code == 0
        assert len(result.json["results"]) == count
    times = [one.get("time") for one in result.json["results"]]
    assert times == [None, 0, 0.1, None, None]


def test_copy_of_a_variable_rate_video_has_its_times(
    rtdetr: Command, model: Path, tmp_path: Path
) -> None:
    pytest.importorskip("av")
    from rtdetr.images.video import VideoWriter, read_video

    times = [0, 0.04, 1, 1.04, 5, 8.3]
    with VideoWriter(tmp_path / "a.mp4") as writer:
        for index, time in enumerate(times):
            writer.add(drawn(48, 64, seed=index), time)
    for stride in (1, 2):
        rtdetr("predict", "a.mp4", "--model", model, "--vid-stride", stride, "--out", str(stride))
        copied = [frame.time for frame in read_video(Path(str(stride)) / "a.mp4")]
        assert copied == pytest.approx(times[::stride])
        assert [one["time"] for one in predictions(str(stride))] == times[::stride]


def test_standard_input(
    rtdetr: Command, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo().save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert rtdetr("predict", "-", "--model", model).code == 0
    (one,) = predictions()
    assert (one["source"], one["width"]) == ("stdin", photo().width)
    assert Path("runs/predict/stdin.jpg").is_file()


def test_sources_and_folder_are_looked_at_before_the_model(rtdetr: Command, tmp_path: Path) -> None:
    result = rtdetr("predict", "source=china.jpg", "x/y.png", "--model", "no/such-model")
    assert result.code == 3
    assert result.err.splitlines() == [
        "skipped: source=china.jpg: no such file",
        "skipped: x/y.png: no such file",
    ]
    assert result.out == "0 images, 0 objects, 2 could not be read\n"
    assert list(tmp_path.iterdir()) == []
    drawn(40, 50).save("a.png")
    Path("file").touch()
    for out, message in {
        "file": "--out: expected a folder, and file is a file or below one",
        "file/deep": "--out: expected a folder, and file/deep is a file or below one",
        "/proc/rtdetr/out": "--out: cannot write to /proc/rtdetr/out: No such file or directory",
    }.items():
        for extra in ((), ("--overwrite",)):
            result = rtdetr("predict", "a.png", "--model", "x", "--out", out, *extra)
            assert (result.code, result.err) == (2, f"rtdetr: {message}\n")


def test_nothing_is_left_of_a_run_without_results(
    rtdetr: Command, model: Path, folder: Path, tmp_path: Path
) -> None:
    for path in folder.iterdir():
        path.write_bytes(b"nothing of the kind")
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.rglob("*"))
    assert rtdetr("predict", folder, "--model", model).code == 3
    assert rtdetr("predict", folder, "--model", model, "--out", "a/b/c").code == 3
    assert rtdetr("predict", folder, "--model", model, "--out", "empty").code == 3
    assert rtdetr("predict", folder, "--model", "none.pth").code == 4
    drawn(40, 50).save(folder / "0.png")
    assert rtdetr("predict", folder, "--model", model, "--no-save", "--out", "a/b").code == 3
    assert sorted(tmp_path.rglob("*")) == before


def test_limit_is_not_used_up_by_what_cannot_be_read(
    rtdetr: Command, model: Path, folder: Path
) -> None:
    (folder / "0.png").write_bytes(b"nothing of the kind")
    result = rtdetr("predict", folder, "--model", model, "--limit", 1, "--no-save", "--batch", 2)
    assert "1 image, " in result.out
    assert result.code == 3


@pytest.mark.parametrize("state", ["missing", "empty", "with results"])
def test_runs_at_one_time_get_a_folder_each(tmp_path: Path, state: str) -> None:
    out = tmp_path / "deep" / "out"
    if state != "missing":
        out.mkdir(parents=True)
    if state == "with results":
        (out / "a.png").touch()
    count = 12
    start, end = Barrier(count), Barrier(count)

    def claim(number: int) -> Path:
        start.wait()
        with claim_folder(out, overwrite=False) as folder:
            (folder / f"{number}.txt").touch()
            end.wait()
        assert [path.name for path in folder.iterdir()] == [f"{number}.txt"]
        return folder

    with ThreadPoolExecutor(count) as pool:
        folders = set(pool.map(claim, range(count)))
    assert len(folders) == count
    assert (out in folders) == (state != "with results")


@pytest.mark.parametrize("word", [".", ".."])
def test_out_may_be_the_folder_of_the_moment(
    rtdetr: Command, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    work = tmp_path / "home" / "work"
    work.mkdir(parents=True)
    monkeypatch.chdir(work)
    drawn(40, 50).save("a.png")
    result = rtdetr("predict", "a.png", "--model", model, "--out", word)
    assert result.code == 0
    place = {".": tmp_path / "home" / "work-2", "..": tmp_path / "home-2"}[word]
    assert f"-> {place}/" in result.out
    assert (place / "a.png").is_file()


def test_out_in_the_home_folder(
    rtdetr: Command, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    drawn(40, 50).save("a.png")
    assert rtdetr("predict", "a.png", "--model", model, "--out=~/out").code == 0
    assert (tmp_path / "home" / "out" / "a.png").is_file()
    assert rtdetr("convert", model, "~/copy").code == 0
    assert (tmp_path / "home" / "copy" / "config.json").is_file()
    assert rtdetr("info", "~/copy").code == 0
    weights = ("--weights=~/copy/model.safetensors", "--no-save")
    assert rtdetr("predict", "~/../a.png", "--model", model, *weights).code == 0
    assert not Path("~").exists()


def test_root_is_no_folder_for_results(rtdetr: Command) -> None:
    drawn(40, 50).save("a.png")
    result = rtdetr("predict", "a.png", "--model", "x", "--out", "/")
    assert (result.code, result.err) == (
        *(2, "rtdetr: --out: expected a folder for results, got /\n"),
    )


def test_outputs_take_the_place_of_no_source(
    rtdetr: Command, model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_clip(folder / "clip.mp4", (64, 48), (64, 48))
    drawn(40, 50).save(folder / "B.PNG")
    (folder.parent / "links").mkdir()
    (folder.parent / "links" / "0.png").symlink_to(folder / "0.png")
    (folder / "extra.png").symlink_to(folder / "1.png")

    def sums() -> dict[str, str]:
        return {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()
        }

    before = sums()
    for sources in ([folder], ["links/0.png"], [f"{folder}/*"], ["images/clip.mp4"]):
        result = rtdetr("predict", *sources, "--model", model, "--out", folder, "--overwrite")
        assert result.code == 0
        assert before.items() <= sums().items()
        for path in folder.iterdir():
            if path.name not in before:
                path.unlink()


def test_convert_does_not_replace_what_it_reads(rtdetr: Command, model: Path) -> None:
    rtdetr("convert", model, "a.pth")
    rtdetr("convert", model, "b")
    Path("link.pth").symlink_to("a.pth")
    before = Path("a.pth").read_bytes()
    for pair in (("a.pth", "a.pth"), ("b", "./b"), ("a.pth", "link.pth")):
        result = rtdetr("convert", *pair, "--overwrite", "--config", model)
        assert result.code == 2
        assert "is IN, which would be lost" in result.err
    assert Path("a.pth").read_bytes() == before
