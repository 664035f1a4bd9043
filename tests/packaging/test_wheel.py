# SPDX-License-Identifier: Apache-2.0
"""The source distribution, and the wheel built from it where there is no torch."""

from __future__ import annotations

import re
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from environments import CONSTRAINTS, ROOT, Environment, run

pytestmark = [pytest.mark.slow, pytest.mark.network]


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    run(sys.executable, "-m", "build", "--sdist", "--outdir", folder, ROOT)
    (made,) = folder.iterdir()
    return made


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built in isolation where no torch is installed, so the build has to ask for one."""
    folder = tmp_path_factory.mktemp("wheel")
    bare = Environment(folder / "env")
    env = {"PIP_BUILD_CONSTRAINT": str(CONSTRAINTS), "RTDETR_OPS_CUDA": "0"}
    log = bare.pip("wheel", "-v", "--no-deps", "-w", folder, sdist, env=env)
    assert "found in the build environment" in log
    (made,) = folder.glob("*.whl")
    return made


def test_sdist_holds_every_source(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    folders = ("csrc", "rtdetr_ops", "build_tools")
    wanted = {
        str(path.relative_to(ROOT))
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix not in {".pyc", ".so"}
    }
    assert wanted <= held
    assert not [name for name in held if name.endswith((".so", ".pyc"))]


def test_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    assert re.fullmatch(rf"rtdetr_ops-[\d.]+-{python}-{python}-linux_\w+\.whl", wheel.name)
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = archive.read(next(n for n in names if n.endswith("/METADATA"))).decode()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"rtdetr", "rtdetr_ops"}
    for package in ("rtdetr", "rtdetr_ops"):
        assert {f"{package}/__init__.py", f"{package}/py.typed"} <= set(names)
    assert len([name for name in names if name.startswith("rtdetr_ops/_C.")]) == 1
    required = [line for line in metadata.splitlines() if line.startswith("Requires-Dist")]
    assert sorted(line.split()[1] for line in required if "extra ==" not in line) == [
        *("huggingface_hub", "numpy", "pillow", "safetensors", "torch>=2.10", "tqdm", "typer"),
        "typing_extensions",
    ]


def test_wheel_runs_where_torch_is(wheel: Path, with_torch: Environment, tmp_path: Path) -> None:
    with_torch.pip("install", "--no-deps", wheel)
    try:
        assert Path(with_torch.smoke(tmp_path)["file"]).is_relative_to(with_torch.folder)
    finally:
        with_torch.pip("uninstall", "-y", "rtdetr-ops")


def test_extension_uses_only_the_stable_abi(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.startswith("rtdetr_ops/_C."))
        library = archive.extract(name, tmp_path)
    symbols = list(_undefined_symbols(library))
    assert "torch_library_impl" in symbols, "the operators are registered by torch's C functions"
    cxx_of_torch = re.compile(r"\b(c10|at|torch|caffe2)::")
    assert [symbol for symbol in symbols if cxx_of_torch.search(symbol)] == []


def _undefined_symbols(library: str) -> Iterator[str]:
    for line in run("nm", "--dynamic", "--undefined-only", "--demangle", library).splitlines():
        yield line.split(maxsplit=1)[1]
