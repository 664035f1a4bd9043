# SPDX-License-Identifier: Apache-2.0
"""What the environment asks of a build; a value that means nothing is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# For each way to run the CUDA kernels on the CPU, the architecture that the kernels believe to be
# on: the races flavour takes the older one, so that both ways to scatter gradients are proven.
EMULATIONS = {"1": "900", "races": "800"}

ALLOWED = {
    "RTDETR_OPS_CUDA": {"0", "1"},
    "RTDETR_OPS_EMULATE_CUDA": set(EMULATIONS),
    "RTDETR_OPS_EMULATED_ARCH": {"800", "900"},
    "RTDETR_OPS_WERROR": {"0", "1"},
}


@dataclass(frozen=True)
class Options:
    """The variables of setup.py, checked."""

    sanitizers: str  # value for -fsanitize; empty for a release build
    werror: bool
    cuda: bool  # False: leave CUDA out although nvcc may be there
    cuda_required: bool  # no library rather than one that lacks CUDA kernels asked for
    emulation: str  # "": the product; else a key of EMULATIONS
    emulated_arch: str
    arch_list: str  # TORCH_CUDA_ARCH_LIST, not yet parsed
    jobs: int | None  # parallel compilations; None: ninja decides

    @property
    def cuda_asked(self) -> bool:
        """Whether CUDA kernels are wanted beside a torch without CUDA too."""
        return self.cuda_required or bool(self.arch_list.strip())


def read_options(environ: Mapping[str, str]) -> Options:
    """Read a build's variables.

    Raises:
        SystemExit: a variable has a value that means nothing; the text lists those that do.
    """
    for name, allowed in ALLOWED.items():
        if environ.get(name, "") not in {"", *allowed}:
            expected = " or ".join(sorted(allowed))
            raise SystemExit(f"{name}: expected {expected}, or unset; got {environ[name]!r}")
    emulation = environ.get("RTDETR_OPS_EMULATE_CUDA", "")
    sanitizers = environ.get("RTDETR_OPS_SANITIZE", "")
    if emulation == "races" and sanitizers:
        raise SystemExit(
            "RTDETR_OPS_SANITIZE: expected unset with RTDETR_OPS_EMULATE_CUDA=races, "
            f"which instruments the kernels by itself; got {sanitizers!r}"
        )
    return Options(
        sanitizers=sanitizers,
        werror=environ.get("RTDETR_OPS_WERROR") == "1",
        cuda=environ.get("RTDETR_OPS_CUDA") != "0",
        cuda_required=environ.get("RTDETR_OPS_CUDA") == "1",
        emulation=emulation,
        emulated_arch=environ.get("RTDETR_OPS_EMULATED_ARCH") or EMULATIONS.get(emulation, ""),
        arch_list=environ.get("TORCH_CUDA_ARCH_LIST", ""),
        jobs=_read_jobs(environ.get("MAX_JOBS", "")),
    )


def _read_jobs(text: str) -> int | None:
    if not text:
        return None
    if not text.isdecimal() or int(text) == 0:
        raise SystemExit(f"MAX_JOBS: expected a positive integer, or unset; got {text!r}")
    return int(text)
