# SPDX-License-Identifier: Apache-2.0
"""Programs of probes: compiled with the emulator in one flavor, run by name."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
PROBES = HERE / "probes"
CXX = shlex.split(os.environ.get("CXX", "g++"))
COMMON = (
    "-std=c++20",
    "-O1",
    "-g",
    "-fPIC",
    "-fvisibility=hidden",
    "-ffp-contract=off",
    f"-I{HERE}",
)
STRICT = ("-Wall", "-Wextra", "-Werror")

# Flags of the emulator, and what kernels get in addition.
FLAVORS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "plain": ((), ()),
    "portable": (("-DRTDETR_OPS_PORTABLE_FIBERS",), ()),
    "sanitized": (("-fsanitize=address,undefined", "-fno-omit-frame-pointer"), ()),
    "races": (("-DRTDETR_OPS_EMULATOR_RACES",), ("-fsanitize=thread",)),
}


class Probes:
    """A program that runs the probes that its command line names."""

    def __init__(self, program: Path) -> None:
        self.program = program

    def run(self, *names: str, seed: int | None = None) -> subprocess.CompletedProcess[str]:
        """Return what became of it; a sanitizer's finding ends it with a nonzero status."""
        env = dict(os.environ, ASAN_OPTIONS="detect_leaks=0", UBSAN_OPTIONS="halt_on_error=1")
        env.pop("RTDETR_OPS_EMULATOR_SEED", None)
        if seed is not None:
            env["RTDETR_OPS_EMULATOR_SEED"] = str(seed)
        words = [str(self.program), *names]
        return subprocess.run(words, env=env, capture_output=True, text=True, check=False)

    def lines(self, *names: str, seed: int | None = None) -> list[str]:
        """Return the lines printed by a program that no sanitizer stopped."""
        done = self.run(*names, seed=seed)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.splitlines()

    def numbers(self, name: str, seed: int | None = None) -> list[float]:
        """Return the last line, after a launch that succeeded."""
        first, *_, last = self.lines(name, seed=seed)
        assert first == "cudaSuccess: no error"
        return [float(word) for word in last.split()]


def compile_probes(flavor: str, folder: Path) -> Probes:
    """Compile emulator and kernels in one flavor."""
    emulator_flags, kernel_flags = FLAVORS[flavor]
    emulator = [path for path in HERE.glob("*.cpp") if path.name != "cpu_kernels.cpp"]
    objects = []
    for source in sorted([*emulator, PROBES / "main.cpp", *PROBES.glob("*.cu")]):
        special = ("-x", "c++", *kernel_flags) if source.suffix == ".cu" else ()
        made = folder / f"{source.name}.o"
        run_compiler(*COMMON, *STRICT, *emulator_flags, *special, "-c", source, "-o", made)
        objects.append(made)
    program = folder / "probes"
    run_compiler(*emulator_flags, *objects, "-pthread", "-ldl", "-o", program)
    return Probes(program)


def run_compiler(*words: object) -> None:
    command = [*CXX, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stderr}"
