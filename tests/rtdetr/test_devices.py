# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tiny_detector import tiny_detector

from rtdetr import devices
from rtdetr.devices import find_device, find_dtype
from rtdetr.errors import RTDetrError, UsageError

CPU = torch.device("cpu")


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu"), "auto"], ids=str)
def test_devices(device: Any) -> None:
    assert isinstance(find_device(device), torch.device)


@pytest.mark.parametrize("device", [True, 1.0, None, "gpu", "cuda:x", -1, [0], b"cpu"], ids=repr)
def test_no_devices(device: Any) -> None:
    with pytest.raises(UsageError, match='device: expected "auto", "cpu"'):
        find_device(device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="has CUDA")
@pytest.mark.parametrize("device", [0, "0", np.int64(0), torch.tensor(0)], ids=repr)
def test_an_integer_is_a_gpu(device: Any) -> None:
    with pytest.raises(RTDetrError, match=r"device cuda:0: this torch"):
        find_device(device)


def test_devices_that_compute_nothing_or_are_not_there() -> None:
    with pytest.raises(UsageError, match="device: meta computes nothing"):
        find_device("meta")
    if not torch.xpu.is_available():
        with pytest.raises(RTDetrError, match="device xpu: this machine, or this torch, has none"):
            find_device("xpu")


def test_float16_is_refused_on_a_cpu_that_computes_it_in_software(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(devices, "_has_float16", lambda: False)
    for word in ("float16", "half", "fp16", torch.float16):
        with pytest.raises(UsageError, match=r"dtype: float16 is many times slower .* bfloat16"):
            find_dtype(word, CPU)
    assert find_dtype("float16", torch.device("cuda")) == torch.float16
    assert find_dtype("bfloat16", CPU) == torch.bfloat16
    monkeypatch.setattr(devices, "_has_float16", lambda: True)
    assert find_dtype("half", CPU) == torch.float16


def test_a_refused_move_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_has_float16", lambda: False)
    detector = tiny_detector()
    for arguments in ({"dtype": "float16"}, {"device": "meta"}, {"device": "cpu", "dtype": "x"}):
        with pytest.raises(UsageError):
            detector.to(**arguments)
    assert (detector.device, detector.dtype, detector.model.dtype) == (
        CPU,
        torch.float32,
        torch.float32,
    )
    # As after moving back from a GPU, where "auto" is float16.
    detector.dtype = torch.float16
    with pytest.raises(UsageError, match="bfloat16"):
        detector.to("cpu")
