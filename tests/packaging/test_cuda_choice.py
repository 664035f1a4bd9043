# SPDX-License-Identifier: Apache-2.0
"""What becomes of CUDA beside every kind of nvcc: built, or one sentence that says why not."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from environments import ROOT, run

sys.path.insert(0, str(ROOT / "build_tools"))

import arch_list
import compilers
import cuda_targets
import nvcc
import options
import questions
from torch_install import TorchInstall

NVCC_13 = "sm_75 sm_80 sm_86 sm_87 sm_88 sm_89 sm_90 sm_100 sm_103 sm_110 sm_120 sm_121"
NVCC_12_4 = "sm_50 sm_75 sm_80 sm_86 sm_89 sm_90"
CXX = compilers.Compiler(("ccache", "g++", "-m64"), "12.2", "x86_64-linux-gnu")

WITH_CUDA = TorchInstall("2.13.0+cu130", Path("/site/torch"), "a test", cuda=True)
WITHOUT_CUDA = TorchInstall("2.13.0+cpu", Path("/site/torch"), "a test", cuda=False)

# A stand-in for nvcc: it answers the two questions, and makes the file behind -o.
ANSWERS = """#!/bin/sh
case "$*" in
*--version*) {version} ;;
*--list-gpu-code*) {codes} ;;
*) {probe} ;;
esac
"""
VERSION = "echo 'Cuda compilation tools, release {}, V{}.41'"
COMPILE = """while [ "$1" != -o ]; do shift; done; : > "$2" """
UNSUPPORTED = """echo 'In file included from <command-line>:' >&2
echo '/cuda/include/crt/host_config.h:143:2: error: #error -- unsupported GNU version! gcc "14" is too new' >&2
exit 1"""

MakeNvcc = Callable[..., Path]


@pytest.fixture
def make_nvcc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeNvcc:
    def make(
        release: str = "13.0",
        codes: str = NVCC_13,
        *,
        script: str = "",
        version_command: str = "",
        codes_command: str = "",
        probe: str = COMPILE,
        mode: int = 0o755,
    ) -> Path:
        path = tmp_path / "cuda" / "bin" / "nvcc"
        path.parent.mkdir(parents=True)
        version = version_command or VERSION.format(release, release)
        listing = codes_command or f"printf '%s\\n' {codes}"
        path.write_text(script or ANSWERS.format(version=version, codes=listing, probe=probe))
        path.chmod(mode)
        monkeypatch.setenv("CUDA_HOME", str(tmp_path / "cuda"))
        return path

    return make


def choose(
    sources: tuple[str, ...] = ("k.cu",), *, torch: TorchInstall = WITH_CUDA, **environ: str
) -> cuda_targets.Cuda:
    return cuda_targets.choose_cuda(sources, options.read_options(environ), CXX, torch)


def test_nvcc_of_cuda_home_comes_first_and_calls_our_compiler(make_nvcc: MakeNvcc) -> None:
    path = make_nvcc("12.9")

    found = nvcc.find_nvcc(CXX.command)

    assert (found.command, found.version) == ((str(path), "-ccbin=g++"), "12.9")


@pytest.mark.parametrize(
    ("text", "codes", "targets"),
    [
        ("", NVCC_13, "sm_80 sm_86 sm_89 sm_90 sm_100 sm_120 compute_120"),
        ("", NVCC_12_4, "sm_80 sm_86 sm_89 sm_90 compute_90"),
        ("9.0", NVCC_13, "sm_90"),
        ("8.0;9.0+PTX", NVCC_13, "sm_80 sm_90 compute_90"),
        ("8.0 8.6", NVCC_12_4, "sm_80 sm_86"),
        ("3.5;7.0 7.5+PTX 8.0", NVCC_13, "sm_80"),
        ("12.0;12.0+PTX", NVCC_13, "sm_120 compute_120"),
        ("9.0a", NVCC_13, "sm_90a"),
        ("Ampere;Hopper", NVCC_13, "sm_80 sm_86 compute_86 sm_90 compute_90"),
        ("Hopper+PTX", NVCC_13, "sm_90 compute_90"),
        ("Turing Ada", NVCC_13, "sm_89 compute_89"),
        ("All", NVCC_12_4, "sm_80 sm_86 sm_89 sm_90 compute_90"),
    ],
)
def test_gpus_to_build_for(make_nvcc: MakeNvcc, text: str, codes: str, targets: str) -> None:
    make_nvcc("13.0", codes)

    cuda = choose(TORCH_CUDA_ARCH_LIST=text, RTDETR_OPS_CUDA="1")

    assert (" ".join(cuda.targets), cuda.status) == (targets, f"13.0 for {targets}")
    assert cuda.nvcc is not None


@pytest.mark.parametrize("name", arch_list.FAMILIES)
def test_a_family_is_what_torch_takes_it_for(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.utils import cpp_extension

    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", name)
    monkeypatch.setattr(arch_list, "OLDEST", 0)
    archs = arch_list.parse_arch_list(name)

    assert archs
    flags = cuda_targets.gencode_flags([target for arch in archs for target in arch.targets])
    assert sorted(flags) == cpp_extension._get_cuda_arch_flags()


@pytest.mark.parametrize("entry", ["hopper", "Rubin", "90", "9.0+ptx", "8.0,9.0", "Hopper+Tegra"])
@pytest.mark.parametrize("switch", ["", "1"])
def test_an_entry_without_meaning_is_refused_by_name(
    make_nvcc: MakeNvcc, entry: str, switch: str
) -> None:
    make_nvcc()

    with pytest.raises(SystemExit, match=re.escape(f"got {entry!r}")) as refusal:
        choose(TORCH_CUDA_ARCH_LIST=f"8.0;{entry}", RTDETR_OPS_CUDA=switch)

    assert str(refusal.value).startswith("TORCH_CUDA_ARCH_LIST: expected")


# The nvcc, the list of GPUs, the reason.
UNSUITABLE = {
    "not executable": ({"mode": 0o644}, "", "nvcc does not tell its version: Permission denied"),
    "no program": ({"script": "\0"}, "", "nvcc does not tell its version: Exec format error"),
    "crash": (
        {"version_command": "kill -SEGV $$"},
        "",
        "nvcc does not tell its version: signal 11",
    ),
    "hang": ({"version_command": "exec sleep 30"}, "", "no answer within 0.5 s"),
    "silence": ({"version_command": ":"}, "", "nvcc does not tell its version: no release"),
    "no list": (
        {
            "release": "10.2",
            "codes_command": "echo \"nvcc fatal   : Unknown option 'x'\" >&2; exit 1",
        },
        "",
        "nvcc 10.2 does not list the GPUs it builds for: fatal : Unknown option 'x'",
    ),
    "empty list": (
        {"codes_command": ":"},
        "",
        "nvcc 13.0 does not list the GPUs it builds for: it printed none",
    ),
    "old GPUs alone": (
        {"release": "10.9", "codes": "sm_50 sm_75"},
        "",
        "nvcc 10.9 builds for none of sm_80, sm_86, sm_89, sm_90, sm_100, sm_120",
    ),
    "no C++20": (
        {
            "release": "11.5",
            "probe": "echo \"nvcc fatal   : Value 'c++20' is not defined\" >&2; exit 1",
        },
        "",
        "nvcc 11.5 with ccache g++ -m64 does not compile CUDA C++20 for sm_80: "
        "fatal : Value 'c++20' is not defined",
    ),
    "host compiler too new": (
        {"probe": UNSUPPORTED},
        "9.0",
        'C++20 for sm_90: error: #error -- unsupported GNU version! gcc "14" is too new',
    ),
    "compiles nothing": ({"probe": ":"}, "", "C++20 for sm_80: no error, and no output"),
    "compiler crash": ({"probe": "kill -SEGV $$"}, "", "C++20 for sm_80: signal 11"),
    "compiler hang": ({"probe": "exec sleep 30"}, "", "C++20 for sm_80: no answer within 0.5 s"),
    "list of old GPUs": ({}, "7.5", "TORCH_CUDA_ARCH_LIST='7.5' has no GPU from 8.0 on"),
    "old family": ({}, "Volta", "TORCH_CUDA_ARCH_LIST='Volta' has no GPU from 8.0 on"),
    "GPU too new": ({"release": "12.4", "codes": NVCC_12_4}, "10.0", "10.0, unknown to nvcc 12.4"),
}


@pytest.mark.parametrize("situation", UNSUITABLE)
def test_an_unsuitable_nvcc_leaves_cuda_out_and_says_why(
    make_nvcc: MakeNvcc, situation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, arch_list_text, reason = UNSUITABLE[situation]
    make_nvcc(**kind)
    if "hang" in situation:
        monkeypatch.setattr(questions, "TIMEOUT", 0.5)

    cuda = choose(TORCH_CUDA_ARCH_LIST=arch_list_text)

    assert cuda.nvcc is None
    assert cuda.status.startswith("not built: ")
    assert cuda.status.endswith(reason)
    with pytest.raises(SystemExit, match=re.escape(reason)) as refusal:
        choose(TORCH_CUDA_ARCH_LIST=arch_list_text, RTDETR_OPS_CUDA="1")
    assert str(refusal.value).startswith("RTDETR_OPS_CUDA=1: expected")


@pytest.mark.parametrize(
    ("sources", "environ", "status"),
    [
        ((), {}, "not built: no .cu sources"),
        (("k.cu",), {"RTDETR_OPS_CUDA": "0"}, "not built: RTDETR_OPS_CUDA=0"),
        (("k.cu",), {"RTDETR_OPS_SANITIZE": "address"}, "not built: RTDETR_OPS_SANITIZE is set"),
    ],
    ids=["no sources", "switched off", "sanitized"],
)
def test_a_build_without_cuda_says_so(
    make_nvcc: MakeNvcc, sources: tuple[str, ...], environ: dict[str, str], status: str
) -> None:
    make_nvcc()

    assert choose(sources, **environ) == cuda_targets.Cuda(status)


@pytest.mark.parametrize(
    ("environ", "targets"),
    [
        ({}, ""),
        ({"TORCH_CUDA_ARCH_LIST": " "}, ""),
        ({"TORCH_CUDA_ARCH_LIST": "9.0"}, "sm_90"),
        ({"TORCH_CUDA_ARCH_LIST": "All"}, "sm_80 sm_86 sm_89 sm_90 compute_90"),
        ({"RTDETR_OPS_CUDA": "1"}, "sm_80 sm_86 sm_89 sm_90 compute_90"),
        ({"RTDETR_OPS_CUDA": "0", "TORCH_CUDA_ARCH_LIST": "9.0"}, ""),
    ],
    ids=["by itself", "blank list", "list", "whole list", "switched on", "switched off"],
)
def test_a_torch_without_cuda_gets_cuda_kernels_on_request(
    make_nvcc: MakeNvcc, environ: dict[str, str], targets: str
) -> None:
    make_nvcc("12.4", NVCC_12_4)

    cuda = choose(torch=WITHOUT_CUDA, **environ)

    assert " ".join(cuda.targets) == targets
    if not environ:
        assert cuda.status == (
            "not built: torch 2.13.0+cpu has no CUDA, "
            "and neither RTDETR_OPS_CUDA=1 nor TORCH_CUDA_ARCH_LIST asks for it"
        )


def test_no_nvcc_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvcc, "nvcc_path", lambda: None)

    assert choose() == cuda_targets.Cuda("not built: nvcc not found")
    with pytest.raises(SystemExit, match="nvcc not found"):
        choose(RTDETR_OPS_CUDA="1")


@pytest.mark.parametrize(
    ("entry", "probe"),
    [
        ("10.0", COMPILE),
        ("8.6f", f'case "$*" in *86f*) echo error: no >&2; exit 1;; esac; {COMPILE}'),
    ],
    ids=["GPU", "feature"],
)
def test_a_gpu_unknown_to_nvcc_is_left_out_by_name(
    make_nvcc: MakeNvcc, entry: str, probe: str
) -> None:
    make_nvcc("12.4", NVCC_12_4, probe=probe)
    text = f"8.0;{entry};9.0"

    cuda = choose(TORCH_CUDA_ARCH_LIST=text)

    assert cuda.targets == ("sm_80", "sm_90")
    assert cuda.status == f"12.4 for sm_80 sm_90 (left out: {entry}, unknown to this nvcc)"
    with pytest.raises(SystemExit, match=f"left out: {entry}"):
        choose(TORCH_CUDA_ARCH_LIST=text, RTDETR_OPS_CUDA="1")


@pytest.mark.skipif(nvcc.nvcc_path() is None, reason="needs nvcc")
@pytest.mark.parametrize(("feature", "problem"), [("", False), ("f", True)])
def test_the_probe_tells_what_a_real_nvcc_builds(feature: str, problem: bool) -> None:
    real = nvcc.find_nvcc(compilers.find_cxx().command)
    flags = cuda_targets.gencode_flags((f"sm_90{feature}",))

    assert bool(nvcc.refusal(real, flags)) == problem


BUILD_INFO = """
import json, pathlib, rtdetr_ops
pathlib.Path("info.json").write_text(json.dumps(rtdetr_ops.build_info()))
"""


@pytest.mark.slow
def test_a_build_beside_an_unsuitable_nvcc_has_the_other_kernels(
    make_nvcc: MakeNvcc, source: Path, tmp_path: Path
) -> None:
    make_nvcc(probe=UNSUPPORTED)
    made = tmp_path / "made"
    words = ("-q", "build", "--build-lib", made, "--build-temp", tmp_path / "objects")
    compiler = tmp_path / "c++"
    compiler.write_text('#!/bin/sh\nexec c++ "$@" -O0\n')  # speed is not asked here
    compiler.chmod(0o755)
    env = {"CXX": str(compiler), "RTDETR_OPS_CUDA": "", "TORCH_CUDA_ARCH_LIST": "All"}

    log = run(sys.executable, "setup.py", *words, cwd=source, env=env)
    run(sys.executable, "-c", BUILD_INFO, cwd=made)

    info = json.loads((made / "info.json").read_text())
    assert info["compiled"]
    assert info["cuda"].startswith("not built: nvcc 13.0 with ")
    assert info["cuda"].endswith('unsupported GNU version! gcc "14" is too new')
    assert f"CUDA        {info['cuda']}" in log
