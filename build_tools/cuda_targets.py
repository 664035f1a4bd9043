# SPDX-License-Identifier: Apache-2.0
"""Whether a build has CUDA, and for which GPUs.

An unsuitable nvcc never stops an installation: what cannot be built is left out, and one sentence says why.
RTDETR_OPS_CUDA=1 makes an error of that sentence.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from arch_list import Arch, parse_arch_list
from compilers import Compiler
from nvcc import UnsuitableError, find_nvcc, gpu_codes, refusal
from options import Options
from torch_install import TorchInstall

# A100, RTX 30, RTX 40, H100/H200, B200, RTX 50. The newest also as PTX, for GPUs still to come.
DEFAULT = ("80", "86", "89", "90", "100", "120")


@dataclass(frozen=True)
class Cuda:
    """The CUDA part of a build."""

    status: str  # for build_info(): version and targets, or "not built: " and why
    nvcc: Compiler | None = None
    targets: tuple[str, ...] = ()  # "sm_90": machine code; "compute_90": PTX
    complete: bool = False  # everything asked for is built


def choose_cuda(
    sources: Collection[object], options: Options, cxx: Compiler, torch: TorchInstall
) -> Cuda:
    """Return what is built from these .cu files.

    Raises:
        SystemExit: TORCH_CUDA_ARCH_LIST has an entry that means nothing, or something cannot be built
            and RTDETR_OPS_CUDA=1 asks for it.
    """
    try:
        _check_wanted(sources, options, torch)
        cuda = _plan(options, cxx)
    except UnsuitableError as reason:
        cuda = Cuda(f"not built: {reason}")
    if options.cuda_required and not cuda.complete:
        raise SystemExit(f"RTDETR_OPS_CUDA=1: expected all CUDA kernels to be built; {cuda.status}")
    return cuda


def gencode_flags(targets: Collection[str]) -> tuple[str, ...]:
    """Return one -gencode per target."""
    return tuple(
        f"-gencode=arch=compute_{target.partition('_')[2]},code={target}" for target in targets
    )


def _check_wanted(sources: Collection[object], options: Options, torch: TorchInstall) -> None:
    reasons = {
        "no .cu sources": not sources,
        "RTDETR_OPS_CUDA=0": not options.cuda,
        "RTDETR_OPS_SANITIZE is set": bool(options.sanitizers),
        f"torch {torch.version} has no CUDA, and neither RTDETR_OPS_CUDA=1 nor TORCH_CUDA_ARCH_LIST asks for it": (
            not torch.cuda and not options.cuda_asked
        ),
    }
    for reason, holds in reasons.items():
        if holds:
            raise UnsuitableError(reason)


def _plan(options: Options, cxx: Compiler) -> Cuda:
    nvcc = find_nvcc(cxx.command)
    archs = parse_arch_list(options.arch_list)
    if archs == []:
        raise UnsuitableError(f"TORCH_CUDA_ARCH_LIST={options.arch_list!r} has no GPU from 8.0 on")
    codes = gpu_codes(nvcc)
    if archs is None:
        archs = _default(nvcc, codes)
    listed = [arch for arch in archs if f"sm_{arch.number}" in codes]
    if listed:
        _check(nvcc, listed[0], cxx)
    # nvcc's list has no features, so those are tried.
    known = [
        arch
        for arch in listed
        if not arch.feature or not refusal(nvcc, gencode_flags(arch.targets))
    ]
    unknown = ", ".join(str(arch) for arch in archs if arch not in known)
    if not known:
        raise UnsuitableError(f"{unknown}, unknown to nvcc {nvcc.version}")
    targets = tuple(dict.fromkeys(target for arch in known for target in arch.targets))
    status = f"{nvcc.version} for {' '.join(targets)}"
    if unknown:
        status += f" (left out: {unknown}, unknown to this nvcc)"
    return Cuda(status, nvcc, targets, complete=not unknown)


def _default(nvcc: Compiler, codes: Collection[str]) -> list[Arch]:
    numbers = [number for number in DEFAULT if f"sm_{number}" in codes]
    if not numbers:
        raise UnsuitableError(f"nvcc {nvcc.version} builds for none of sm_{', sm_'.join(DEFAULT)}")
    return [*map(Arch, numbers[:-1]), Arch(numbers[-1], ptx=True)]


def _check(nvcc: Compiler, arch: Arch, cxx: Compiler) -> None:
    target = f"sm_{arch.number}"
    problem = refusal(nvcc, gencode_flags((target,)))
    if problem:
        host = " ".join(cxx.command)
        raise UnsuitableError(
            f"nvcc {nvcc.version} with {host} does not compile CUDA C++20 for {target}: {problem}"
        )
