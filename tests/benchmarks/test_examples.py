# SPDX-License-Identifier: Apache-2.0
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(name, *arguments):
    # The examples must run beside a package that is built in place and not installed.
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "examples" / name), *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True, env=environment)


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
