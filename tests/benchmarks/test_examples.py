# SPDX-License-Identifier: Apache-2.0
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(name, *arguments, folder=None):
    # The examples must run beside a package that is built in place and not installed.
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "examples" / name), *map(str, arguments)]
    return subprocess.run(
        command, check=False, capture_output=True, text=True, env=environment, cwd=folder
    )


@pytest.mark.slow
def test_demo_finds_that_the_detections_agree_and_draws(tmp_path):
    image = pytest.importorskip("PIL.Image", reason="the demo opens pictures with Pillow")
    pytest.importorskip("transformers", reason="the demo runs models of transformers")
    photo = tmp_path / "photo.png"
    image.linear_gradient("L").save(photo)
    done = run("demo.py", photo, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Photo: 256 x 256" in done.stdout
    assert done.stdout.count("The detections agree") == 2
    assert "RANDOM WEIGHTS" in done.stdout + done.stderr
    drawn, given = (image.open(path) for path in (tmp_path / "build" / "demo" / "photo.png", photo))
    assert drawn.size == given.size


def test_demo_names_a_missing_photo(tmp_path):
    done = run("demo.py", tmp_path / "absent.jpg")
    assert done.returncode == 2
    assert "photo: no file" in done.stderr


@pytest.mark.slow
def test_speed_up_example_patches_every_decoder_layer():
    pytest.importorskip("transformers", reason="the example runs a model of transformers")
    done = run("speed_up_your_detr.py")
    assert done.returncode == 0, done.stderr
    assert "6 patched, 0 skipped" in done.stdout
    assert "torch.Size([1, 300, 4])" in done.stdout
