# SPDX-License-Identifier: Apache-2.0
"""TORCH_CUDA_ARCH_LIST: which GPUs a build is for, in the words that torch understands."""

from __future__ import annotations

import re
from dataclasses import dataclass

# What the kernels are written for: 16-bit conversions in hardware, both kinds.
OLDEST = 80

# Source: named_arches in torch/utils/cpp_extension.py.
FAMILIES = {
    "Kepler": "3.5+PTX",
    "Kepler+Tesla": "3.7",
    "Maxwell": "5.0;5.2+PTX",
    "Maxwell+Tegra": "5.3",
    "Pascal": "6.0;6.1+PTX",
    "Volta": "7.0+PTX",
    "Volta+Tegra": "7.2",
    "Turing": "7.5+PTX",
    "Ampere": "8.0;8.6+PTX",
    "Ampere+Tegra": "8.7",
    "Ada": "8.9+PTX",
    "Hopper": "9.0+PTX",
    "Blackwell": "10.0;10.3;12.0;12.1+PTX",
    "Blackwell+Tegra": "11.0",
}

# Words for what the compiler or the machine has; the default list covers every machine.
EVERYTHING = {"All", "Auto", "Common", "native"}

_ENTRY = re.compile(r"(?P<major>\d+)\.(?P<minor>\d)(?P<feature>[af]?)(?P<ptx>\+PTX)?")


@dataclass(frozen=True)
class Arch:
    """One kind of GPU."""

    number: str  # "90" for compute capability 9.0
    feature: str = ""  # "a" or "f": code for this GPU or its family alone
    ptx: bool = False  # also PTX, for newer GPUs

    @property
    def targets(self) -> tuple[str, ...]:
        """Targets in the words of nvcc: "sm_90" is machine code, "compute_90" PTX."""
        name = self.number + self.feature
        return (f"sm_{name}", f"compute_{name}") if self.ptx else (f"sm_{name}",)

    def __str__(self) -> str:
        return f"{self.number[:-1]}.{self.number[-1]}{self.feature}{'+PTX' if self.ptx else ''}"


def parse_arch_list(arch_list: str) -> list[Arch] | None:
    """Return the GPUs that a list names, those too old for the kernels left out; None for the default.

    A list made for other projects may begin with older GPUs.

    Args:
        arch_list: e.g. "8.0;9.0+PTX", "8.0 8.6" or "Ampere;Hopper".

    Raises:
        SystemExit: an entry means nothing.
    """
    words = arch_list.replace(";", " ").split()
    if not words or EVERYTHING.intersection(words):
        return None
    archs = [_parse(entry) for word in words for entry in _entries(word)]
    return [arch for arch in archs if int(arch.number) >= OLDEST]


def _entries(word: str) -> list[str]:
    """Expand the name of a family, with or without +PTX behind it."""
    family = FAMILIES.get(word)
    if family is None and word.removesuffix("+PTX") in FAMILIES:
        family = FAMILIES[word.removesuffix("+PTX")].removesuffix("+PTX") + "+PTX"
    return [word] if family is None else family.split(";")


def _parse(entry: str) -> Arch:
    match = _ENTRY.fullmatch(entry)
    if match is None:
        raise SystemExit(
            'TORCH_CUDA_ARCH_LIST: expected compute capabilities such as "8.0;9.0+PTX" or names such as '
            f'"Ampere;Hopper", got {entry!r}'
        )
    return Arch(match["major"] + match["minor"], match["feature"], match["ptx"] is not None)
