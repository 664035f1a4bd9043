# SPDX-License-Identifier: Apache-2.0
"""What a run leaves that ends before its time: a signal, a full disk."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import resource
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import pytest
from command import Command
from photos import drawn

ROOT = Path(__file__).parents[3]
LAST_S = 120


def start(*arguments: object, cwd: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "rtdetr", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=_listen_to_signals,
    )


def _listen_to_signals() -> None:
    """A shell starts its jobs in the background deaf to SIGINT, and this process may be one."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def entries(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return found


def wait_for_entries(path: Path, count: int, run: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + LAST_S
    # Each entry is a line, beside two brackets; while it is written, a reader may see part of one.
    while not path.exists() or len(path.read_bytes().splitlines()) < count + 2:
        assert run.poll() is None, run.communicate()
        assert time.monotonic() < end
        time.sleep(0.005)


SIGNALS = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129, "SIGKILL": -9}


@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_leaves_the_lists_of_what_was_found(
    model: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "many").mkdir()
    drawn(300, 400).save(tmp_path / "many" / "0.png")
    for index in range(1, 2000):
        (tmp_path / "many" / f"{index}.png").symlink_to("0.png")
    run = start("predict", "many", "--model", model, "--format", "image,json,coco", cwd=tmp_path)
    out = tmp_path / "runs" / "predict"
    wait_for_entries(out / "predictions.json", 3, run)
    run.send_signal(getattr(signal, name))
    stdout, stderr = run.communicate(timeout=LAST_S)
    assert run.returncode == SIGNALS[name]
    found = entries(out / "predictions.json")
    assert 3 <= len(found) < 2000
    assert [one["source"] for one in found] == [f"many/{i}.png" for i in range(len(found))]
    images = {one["image_id"] for one in entries(out / "predictions_coco.json")}
    assert images <= set(range(len(found) + 1))
    if name == "SIGKILL":
        return
    assert stderr == b""
    assert f"{len(found)} images".encode() in stdout.splitlines()[-1]
    assert [path.name for path in out.iterdir() if path.name.startswith(".")] == []
    copies = [path for path in out.iterdir() if path.suffix == ".png"]
    assert len(copies) - len(found) in (0, 1)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_leaves_the_frames_of_a_video(model: Path, tmp_path: Path, name: str) -> None:
    pytest.importorskip("av")
    from rtdetr.images.video import VideoWriter, read_video

    with VideoWriter(tmp_path / "clip.mp4") as writer:
        for index in range(1500):
            writer.add(drawn(48, 64, seed=index % 3))
    run = start("predict", "clip.mp4", "--model", model, "--json", cwd=tmp_path)
    out = tmp_path / "runs" / "predict"
    wait_for_entries(out / "predictions.json", 3, run)
    run.send_signal(getattr(signal, name))
    stdout, _ = run.communicate(timeout=LAST_S)
    assert run.returncode == SIGNALS[name]
    found = entries(out / "predictions.json")
    assert json.loads(stdout)["results"] == found
    assert len(list(read_video(out / "clip.mp4"))) - len(found) in (0, 1)
    assert sorted(path.name for path in out.iterdir()) == ["clip.mp4", "predictions.json"]


def test_a_full_disk_leaves_what_was_found(
    rtdetr: Command, model: Path, folder: Path, tmp_path: Path
) -> None:
    drawn(700, 800).save(folder / "1.png")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # A limit on the size of files stands in for a full disk: the same calls fail.
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        result = rtdetr("predict", folder, "--model", model)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert result.code == 1
    assert result.err == "rtdetr: runs/predict/1.png: file too large\n"
    assert "-> runs/predict/  (annotated copies, predictions.json)" in result.out
    out = tmp_path / "runs" / "predict"
    assert sorted(path.name for path in out.iterdir()) == ["0.png", "predictions.json"]
    assert [one["source"] for one in entries(out / "predictions.json")] == [f"{folder}/0.png"]


def test_a_video_on_a_terminal_is_a_bar_and_one_line(model: Path, tmp_path: Path) -> None:
    pytest.importorskip("av")
    from rtdetr.images.video import VideoWriter

    with VideoWriter(tmp_path / "clip.mp4") as writer:
        for index in range(200):
            writer.add(drawn(48, 64, seed=index % 3))
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    run = subprocess.Popen(
        [sys.executable, "-m", "rtdetr", "predict", "clip.mp4", "--model", str(model), "--no-save"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=follower,
        stderr=follower,
    )
    os.close(follower)
    shown = b""
    try:
        while data := os.read(leader, 4096):
            shown += data
    except OSError:
        pass  # the other side is closed
    assert run.wait(LAST_S) == 0
    os.close(leader)
    text = shown.decode()
    assert "clip.mp4:" in text
    assert "/200 [" in text
    assert "clip.mp4#" not in text
    assert "clip.mp4  200 frames, " in text
