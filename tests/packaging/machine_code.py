# SPDX-License-Identifier: Apache-2.0
"""The GPU kernels of a library, read back from its machine code."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from environments import run

_USAGE = re.compile(r"Function (\S+):\s+REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)")
_FUNCTION = re.compile(r"Function : (\S+)\n(.*?)(?=\n\s*Function : |\Z)", re.DOTALL)
_OPCODE = re.compile(r"/\*[0-9a-f]{4,}\*/ +(?:@!?U?P\w+ +)?([A-Z][\w.]*)")
_SCOPE = re.compile(r"\(anonymous namespace\)::|\b\w+::")
_KERNEL = re.compile(r"(\w+)(<[^()]*>)?\(")


@dataclass(frozen=True)
class Kernel:
    """One kernel for one target."""

    registers: int  # of a thread
    stack: int  # bytes of a thread, spilled registers among them
    local: int  # bytes of a thread
    opcodes: frozenset[str]  # in full: "LDG.E.128.CONSTANT"


def find_tools() -> Path | None:
    """Return the folder of cuobjdump and nvdisasm: the toolkit's, else what triton brings along."""
    on_path = shutil.which("cuobjdump")
    triton = importlib.util.find_spec("triton")
    folders = [
        *(Path(home, "bin") for home in (os.environ.get("CUDA_HOME"), "/usr/local/cuda") if home),
        *([Path(on_path).parent] if on_path else []),
        *([Path(triton.origin).parent / "backends/nvidia/bin"] if triton and triton.origin else []),
    ]
    wanted = ("cuobjdump", "nvdisasm")
    return next((f for f in folders if all((f / name).is_file() for name in wanted)), None)


def read_kernels(library: Path, target: str, tools: Path) -> dict[str, Kernel]:
    """Return the kernels for a target such as "sm_90" by name: "forward_kernel<float, 16>"."""
    usage = _dump(library, target, tools, "-res-usage")
    code = dict(_FUNCTION.findall(_dump(library, target, tools, "-sass")))
    return {
        name: Kernel(
            *(int(number) for number in numbers), frozenset(_OPCODE.findall(code[mangled]))
        )
        for mangled, *numbers in _USAGE.findall(usage)
        for name in _plain_names(mangled)
    }


def _dump(library: Path, target: str, tools: Path, what: str) -> str:
    env = {"PATH": f"{tools}:{os.environ['PATH']}"}  # cuobjdump calls nvdisasm
    return run(tools / "cuobjdump", what, "-arch", target, library, env=env)


def _plain_names(mangled: str) -> Iterator[str]:
    """Yield the name without namespaces, return type and arguments."""
    full = _SCOPE.sub("", run("c++filt", mangled))
    for name, parameters in _KERNEL.findall(full)[:1]:
        yield name + parameters
