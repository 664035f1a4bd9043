# SPDX-License-Identifier: Apache-2.0
"""Which GPUs a build is for, and whether it has CUDA at all."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from compilers import Compiler, find_nvcc, gpu_codes
from options import Options

# A100, RTX 30, RTX 40, H100/H200, B200, RTX 50. The newest also as PTX, for GPUs still to come.
DEFAULT = ("80", "86", "89", "90", "100", "120")

# What the kernels are written for: 16-bit conversions in hardware, both kinds.
OLDEST = 80

_ENTRY = re.compile(r"(?P<major>\d+)\.(?P<minor>\d)(?P<feature>[af]?)(?P<ptx>\+PTX)?")


@dataclass(frozen=True)
class Cuda:
    """The CUDA part of a build."""

    status: str  # for build_info(): version and targets, or "not built: " and why
    nvcc: Compiler | None = None
    targets: tuple[str, ...] = ()  # "sm_90": machine code; "compute_90": PTX


def choose_cuda(sources: Collection[object], options: Options) -> Cuda:
    """Return what is built from these .cu files.

    Raises:
        SystemExit: TORCH_CUDA_ARCH_LIST has an entry that this nvcc cannot build.
    """
    nvcc = find_nvcc()
    reasons = {
        "no .cu sources": not sources,
        "RTDETR_OPS_CUDA=0": not options.cuda,
        "RTDETR_OPS_SANITIZE is set": bool(options.sanitizers),
        "nvcc not found": nvcc is None,
    }
    why_not = next((reason for reason, holds in reasons.items() if holds), None)
    if nvcc is None or why_not:
        return Cuda(f"not built: {why_not}")
    targets = choose_targets(options.arch_list, gpu_codes(nvcc))
    return Cuda(f"{nvcc.version} for {' '.join(targets)}", nvcc, targets)


def choose_targets(arch_list: str, known: Collection[str]) -> tuple[str, ...]:
    """Return targets in the words of nvcc.

    A list made for other projects may begin with older GPUs: those are left out.

    Args:
        arch_list: TORCH_CUDA_ARCH_LIST, e.g. "8.0;9.0+PTX" or "8.0 8.6"; empty for the default.
        known: what `nvcc --list-gpu-code` prints, e.g. "sm_90".

    Raises:
        SystemExit: an entry is not understood, or nvcc does not know it.
    """
    entries = arch_list.replace(";", " ").split()
    if entries:
        targets = dict.fromkeys(name for entry in entries for name in _parse(entry, known))
        if not targets:
            raise SystemExit(
                f"TORCH_CUDA_ARCH_LIST: expected 8.0 or newer among them, got {arch_list!r}"
            )
        return tuple(targets)
    default = [number for number in DEFAULT if f"sm_{number}" in known]
    return (*(f"sm_{number}" for number in default), f"compute_{default[-1]}")


def gencode_flags(targets: Collection[str]) -> tuple[str, ...]:
    """Return one -gencode per target."""
    return tuple(
        f"-gencode=arch=compute_{target.partition('_')[2]},code={target}" for target in targets
    )


def _parse(entry: str, known: Collection[str]) -> tuple[str, ...]:
    match = _ENTRY.fullmatch(entry)
    if match is None:
        raise SystemExit(
            'TORCH_CUDA_ARCH_LIST: expected compute capabilities such as "8.0;9.0+PTX", '
            f"got {entry!r}"
        )
    base = match["major"] + match["minor"]
    if int(base) < OLDEST:
        return ()
    if f"sm_{base}" not in known:
        numbers = sorted(int(code.removeprefix("sm_")) for code in known)
        listed = ", ".join(f"{number // 10}.{number % 10}" for number in numbers)
        raise SystemExit(
            f"TORCH_CUDA_ARCH_LIST: expected what this nvcc builds ({listed}), got {entry!r}"
        )
    number = base + match["feature"]
    return (f"sm_{number}", f"compute_{number}") if match["ptx"] else (f"sm_{number}",)
