# SPDX-License-Identifier: Apache-2.0
"""Where and on what a run was made."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from core.devices import Device

__all__ = ["RESULTS", "ROOT", "describe", "display_name", "result_path"]

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"


def describe(device: Device, threads: int) -> dict[str, Any]:
    """CPU, versions, commit, date and device of a run that starts now."""
    return {
        "cpu": _cpu_name(),
        "isa": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": threads,
        "load_at_start": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        **_commit(),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        **device.describe(),
    }


def display_name(machine: dict[str, Any]) -> str:
    """What ran: a GPU where one was used, else so many threads of a CPU."""
    return machine.get("gpu") or f"{machine['cpu']}, {machine['threads']} threads"


def result_path(machine: dict[str, Any], results: Path = RESULTS) -> Path:
    """``<results>/<machine>/<date>-<commit>.json``."""
    folder = results / re.sub(r"[^a-z0-9]+", "-", display_name(machine).lower()).strip("-")
    return folder / f"{machine['date']}-{machine['commit']}.json"


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        name = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE)
        if name:
            return name.group(1).strip()
    return platform.processor() or platform.machine()


def _commit() -> dict[str, Any]:
    """The commit and whether files differ from it; a copy without its repository knows neither."""
    if not (ROOT / ".git").exists():
        return {"commit": "unknown", "modified": None}
    return {
        "commit": _git("rev-parse", "--short", "HEAD"),
        "modified": bool(_git("status", "--porcelain", "--untracked-files=no")),
    }


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout.strip()
