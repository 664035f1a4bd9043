# SPDX-License-Identifier: Apache-2.0
"""A build for one GPU, loaded where torch has no CUDA."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from environments import ROOT, run

sys.path.insert(0, str(ROOT / "build_tools"))

from nvcc import find_nvcc, nvcc_path

LOAD = """
import json, pathlib, rtdetr_ops, torch
from rtdetr_ops import _C
pathlib.Path("info.json").write_text(
    json.dumps({"file": _C.__file__, "cuda": rtdetr_ops.build_info()["cuda"]})
)
"""


@pytest.mark.slow
@pytest.mark.skipif(nvcc_path() is None, reason="needs nvcc")
def test_a_build_for_one_gpu_says_so_and_loads_on_any_torch(source: Path, tmp_path: Path) -> None:
    made = tmp_path / "made"
    words = ("-q", "build", "--build-lib", made, "--build-temp", tmp_path / "objects")
    env = {"TORCH_CUDA_ARCH_LIST": "9.0", "RTDETR_OPS_CUDA": "", "RTDETR_OPS_SANITIZE": ""}

    log = run(sys.executable, "setup.py", *words, cwd=source, env=env)
    run(sys.executable, "-c", LOAD, cwd=made)

    info = json.loads((made / "info.json").read_text())
    assert Path(info["file"]).is_relative_to(made)
    assert info["cuda"] == f"{find_nvcc().version} for sm_90"
    assert info["cuda"] in log
    needed = run("readelf", "--dynamic", info["file"])
    assert "[libtorch.so]" in needed, "a CUDA torch has its streams behind libtorch"
    assert "libcuda" not in needed, "a CPU torch comes without the CUDA runtime"
