# SPDX-License-Identifier: Apache-2.0
"""The commands of each step, as data; nothing runs here."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from gpu.commands import ROOT, Command

__all__ = [
    "PEERS",
    "Setting",
    "build",
    "ceilings",
    "detect",
    "look",
    "measure",
    "micro",
    "sanitize",
    "test",
]

PEERS = ROOT / ".peers"
"""Wheels, sdists and source trees of peers, to be installed; git ignores it."""

MICRO = ROOT / "benchmarks" / "gpu" / "micro.cu"
SANITIZERS = ("memcheck", "racecheck", "initcheck")
ERROR_STATUS = 99
"""The status that compute-sanitizer exits with when it reports an error."""


@dataclass(frozen=True)
class Setting:
    """Where the check runs.

    Args:
        capability: of the GPU, such as ``"9.0"``.
        work: folder of logs and programs.
        nvcc: the CUDA compiler, None where there is none.
        dry_run: whether the tests and the measurements are to do without a GPU.
    """

    capability: str
    work: Path
    nvcc: str | None
    dry_run: bool

    @property
    def environment(self) -> Mapping[str, str]:
        """For whatever compiles CUDA: the architectures asked for, else the one that is here."""
        return {"TORCH_CUDA_ARCH_LIST": os.environ.get("TORCH_CUDA_ARCH_LIST", self.capability)}

    @property
    def program(self) -> Path:
        """The compiled microbenchmarks."""
        return self.work / "micro"


def build(setting: Setting) -> list[Command]:
    """The package and the peers, all from source, side by side."""
    package = Command("package", _pip(ROOT), 300, environment=setting.environment)
    for_cuda = {**setting.environment, "FORCE_CUDA": "1"}  # some peers build for the CPU otherwise
    sources = sorted(PEERS.iterdir()) if PEERS.is_dir() else []
    peers = [
        Command(f"peer {path.name}", _pip(path), 300, environment=for_cuda, required=False)
        for path in sources
    ]
    return [package, *peers]


def look(setting: Setting) -> list[Command]:
    """Ask the installed package whether its CUDA backend runs here."""
    code = (
        "import torch, rtdetr_ops\n"
        "print(rtdetr_ops.build_info())\n"
        "text = str(rtdetr_ops.explain(torch.zeros(1, device='cuda')))\n"
        "print(text)\n"
        "raise SystemExit('cuda: yes' not in text)\n"
    )
    return [Command("backends", (sys.executable, "-c", code), 60, setting.work)]


def micro(setting: Setting) -> list[Command]:
    """Compile the microbenchmarks."""
    if setting.nvcc is None:
        return []
    arch = f"-arch=sm_{setting.capability.replace('.', '')}"
    words = (setting.nvcc, "-O3", "-std=c++17", arch, str(MICRO), "-o", str(setting.program))
    return [Command("nvcc micro.cu", words, 120)]


def ceilings(setting: Setting) -> Command:
    """Run the microbenchmarks; they print JSON."""
    return Command("micro", (str(setting.program),), 60)


def test(setting: Setting) -> list[Command]:
    """The tests that need a GPU; in a dry run those that can do with the CPU do so."""
    words = (*_pytest(), "gpu")
    if not setting.dry_run:
        # Most of the time goes into compiling Triton kernels.
        side_by_side = ("-n", "12") if find_spec("xdist") else ()
        return [Command("tests", (*words, *side_by_side), 300, ROOT / "tests")]
    # Beside an editable install, the folder tests/rtdetr would pass for the package rtdetr.
    on_cpu = {"RTDETR_OPS_TEST_DEVICE": "cpu", "PYTHONPATH": str(ROOT)}
    # The rest of the files takes tests from tests/ops, which run on the CPU anyway.
    own = "gradients or streams or devices or training or memory or short_set"
    return [Command("tests", (*words, "-k", own), 180, ROOT / "tests", on_cpu)]


def sanitize(setting: Setting) -> list[Command]:
    """The short set of tests under each tool of compute-sanitizer."""
    tool = find_sanitizer(setting)
    if tool is None:
        return []
    flags = (f"--error-exitcode={ERROR_STATUS}", "--report-api-errors=no", "--print-limit=20")
    words = (*_pytest(), "gpu/test_gpu_short_set.py")
    # Every tensor an allocation of its own, so that its end is an end to the tool as well.
    alone = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    return [
        Command(name, (tool, f"--tool={name}", *flags, *words), 180, ROOT / "tests", alone)
        for name in SANITIZERS
    ]


def find_sanitizer(setting: Setting) -> str | None:
    """compute-sanitizer on the PATH or beside nvcc."""
    beside = Path(setting.nvcc).parent if setting.nvcc else None
    return shutil.which("compute-sanitizer") or (
        shutil.which("compute-sanitizer", path=str(beside)) if beside else None
    )


def measure(setting: Setting, result: Path, seconds: float) -> Command:
    """Time the operators into ``result`` for so many seconds, and some more for what runs then."""
    return _measuring("benchmarks", "operator", setting, result, seconds)


def detect(setting: Setting, result: Path, seconds: float) -> Command:
    """The same with whole detectors."""
    return _measuring("detector", "detector", setting, result, seconds)


def _measuring(name: str, plan: str, setting: Setting, result: Path, seconds: float) -> Command:
    words = (sys.executable, "-m", "gpu.measure", f"--plan={plan}")
    flags = (f"--json={result}", f"--seconds={seconds:.0f}")
    dry = ("--dry-run",) if setting.dry_run else ()
    # Not required: the contenders that fail are in the file, and some of them are not ours.
    return Command(name, (*words, *flags, *dry), seconds + 30, ROOT / "benchmarks", required=False)


def _pip(path: Path) -> tuple[str, ...]:
    flags = (
        "--no-build-isolation",
        "--no-deps",
        "--no-index",
        "--force-reinstall",
        "--disable-pip-version-check",
    )
    return (sys.executable, "-m", "pip", "install", *flags, str(path))


def _pytest() -> tuple[str, ...]:
    # From the folder of the tests: `python -m` puts the current one on the path, and the package's own
    # sources there would hide the package installed.
    flags = (
        "-c",
        str(ROOT / "pyproject.toml"),
        f"--rootdir={ROOT}",
        "-p",
        "no:cacheprovider",
        "-q",
    )
    return (sys.executable, "-m", "pytest", *flags)
