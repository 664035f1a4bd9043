# SPDX-License-Identifier: Apache-2.0
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from core.detectors import DetectorContender, compiled, eager, make_images, replayed
from core.devices import CpuStandIn
from core.records import DETECTOR, load
from gpu.detector_plan import GPU_CONTENDERS
from suites.detector import CPU_CONTENDERS

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"
LISTS = {"cpu": CPU_CONTENDERS, "gpu": GPU_CONTENDERS}


@pytest.mark.parametrize("contenders", LISTS.values(), ids=LISTS)
def test_names_are_unique(contenders):
    assert len({contender.name for contender in contenders}) == len(contenders)


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*/*.json")), ids=lambda path: path.name)
def test_every_recorded_detector_can_be_measured_again(path):
    run = load(path)
    contenders = GPU_CONTENDERS if "gpu" in run.machine else CPU_CONTENDERS
    recorded = {record.contender for record in run.records if record.suite == DETECTOR}
    assert recorded <= {contender.name for contender in contenders}


@pytest.mark.parametrize("mode", [eager, compiled, replayed])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_a_mode_runs_the_model_in_its_dtype(mode, dtype):
    def model(images):
        assert images.dtype == dtype
        return SimpleNamespace(logits=images.mean((2, 3)), pred_boxes=images.amax((2, 3)))

    device = CpuStandIn()
    images = make_images(2, 4, device)
    contender = DetectorContender("a", lambda models, dtype: model, dtype, mode)
    logits, boxes = contender.bind(None, images, device)()
    assert torch.equal(logits, images.to(dtype).mean((2, 3)))
    assert torch.equal(boxes, images.to(dtype).amax((2, 3)))
    assert contender.exact == (dtype == torch.float32)
