# SPDX-License-Identifier: Apache-2.0
"""How a torch on disk is found and judged, without importing it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from environments import ROOT, fake_torch

sys.path.insert(0, str(ROOT / "build_tools"))

import torch_install


@pytest.mark.parametrize(
    ("version", "enough"),
    [("2.9.1", False), ("2.10.0", True), ("2.13.0+cpu", True), ("3.0.0a0+git1", True)],
)
def test_torch_is_found_and_judged_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, enough: bool
) -> None:
    fake_torch(tmp_path, version)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))

    found = torch_install.find_torch()

    assert found is not None
    assert (found.root, found.version, found.new_enough) == (tmp_path / "torch", version, enough)


@pytest.mark.parametrize("below", ["", "torch"], ids=["site-packages", "torch itself"])
def test_a_torch_is_named_by_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: str
) -> None:
    fake_torch(tmp_path, "2.12.1")
    monkeypatch.setenv("RTDETR_OPS_TORCH", str(tmp_path / below))

    found = torch_install.find_torch()

    assert found is not None
    assert (found.root, found.version) == (tmp_path / "torch", "2.12.1")


@pytest.mark.parametrize(
    ("version", "answer"), [("", "without torch"), ("2.9.1", "with torch 2.9.1")]
)
def test_a_named_folder_without_a_suitable_torch_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, answer: str
) -> None:
    if version:
        fake_torch(tmp_path, version)
    monkeypatch.setenv("RTDETR_OPS_TORCH", str(tmp_path))

    with pytest.raises(SystemExit, match=re.escape(f"got '{tmp_path}', {answer}")) as refusal:
        torch_install.find_torch()
    assert str(refusal.value).startswith(
        "RTDETR_OPS_TORCH: expected a folder that holds torch>=2.10"
    )


@pytest.mark.parametrize(
    ("line", "cuda"),
    [
        ("cuda: Optional[str] = None", False),
        ("cuda = None", False),
        ("cuda: Optional[str] = '13.0'", True),
        ("cuda = '12.8'", True),
        ("", True),
    ],
)
def test_a_torch_tells_whether_it_has_cuda(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, cuda: bool
) -> None:
    fake_torch(tmp_path, "2.13.0", line)
    monkeypatch.setenv("RTDETR_OPS_TORCH", str(tmp_path))

    found = torch_install.find_torch()

    assert found is not None
    assert found.cuda == cuda
