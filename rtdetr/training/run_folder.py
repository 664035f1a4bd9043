# SPDX-License-Identifier: Apache-2.0
"""The folder of a run: a new one each time, and what is written into it about the run."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from ..errors import MissingExtraError, UsageError
from ..files import atomic_write, claim_unused_folder, home_path
from ..images.names import unicode_name
from .checkpoint import LAST, PREVIOUS

__all__ = [
    "claim_run_folder",
    "find_newest_run",
    "list_versions",
    "read_config",
    "write_config",
    "write_json",
]

CONFIG, RUN = "config.yaml", "run.json"


def claim_run_folder(out: str | Path) -> Path:
    """A new folder: ``out``, or ``out-2``, ``out-3``, ... where it exists and is not empty.

    Raises:
        UsageError: it cannot be made.
    """
    first = home_path(out)
    first = first.resolve() if first.name in ("", "..") else first
    if unicode_name(str(first)) != str(first):
        raise UsageError(
            f"out: expected a name in UTF-8, which safetensors asks for, got {unicode_name(str(first))}"
        )
    if not first.name:
        raise UsageError(f"out: expected a folder for a run, got {first}")
    try:
        first.mkdir(parents=True, exist_ok=True)
        mark, _ = claim_unused_folder(first, CONFIG)
    except FileExistsError:
        raise UsageError(f"out: expected a folder, and {first} is a file") from None
    except OSError as error:
        raise UsageError(f"out: cannot write to {first}: {error.strerror}") from None
    return mark.parent


def find_newest_run(out: str | Path) -> Path:
    """Of ``out``, ``out-2`` and so on, the run that has written last.

    Raises:
        UsageError: there is none.
    """
    first = home_path(out)
    folders = [first, *first.parent.glob(f"{first.name}-*")]
    files = [folder / name for folder in folders for name in (LAST, PREVIOUS)]
    found = [file for file in files if file.is_file()]
    if not found:
        raise UsageError(f"--resume: no run with a {LAST} at {first}; name its folder")
    return max(found, key=lambda file: file.stat().st_mtime).parent


def write_config(folder: Path, options: Mapping[str, Any]) -> None:
    """``config.yaml``: the options of the run, as ``rtdetr train --config`` reads them."""
    text = _yaml().safe_dump(dict(options), sort_keys=False, allow_unicode=True)
    with atomic_write(folder / CONFIG) as path:
        path.write_text(text, encoding="utf-8")


def read_config(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """The values of a YAML file by name, and the line of each name that is written in it, from 1.

    Raises:
        UsageError: it cannot be read, or holds anything but names and values.
    """
    yaml = _yaml()
    try:
        text = home_path(path).read_text(encoding="utf-8")
        node, values = yaml.compose(text), yaml.safe_load(text)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    except (ValueError, yaml.YAMLError) as error:
        raise UsageError(f"{path}: not a YAML file ({' '.join(str(error).split())})") from None
    if values is None:
        return {}, {}
    if not isinstance(values, dict):
        raise UsageError(
            f"{path}: expected lines such as epochs: 30, got a {type(values).__name__}"
        )
    first = node.start_mark.line + 1
    lines = {str(key.value): key.start_mark.line + 1 for key, _ in node.value}
    # "<<" takes in the names of another table.
    return (
        {str(name): value for name, value in values.items()},
        {str(name): lines.get(str(name), first) for name in values},
    )


def _yaml() -> Any:
    try:
        import yaml
    except ImportError as error:
        raise MissingExtraError("training", "pyyaml", '"rtdetr-ops[train]"') from error
    return yaml


def write_json(folder: Path, values: Mapping[str, Any], name: str = RUN) -> None:
    """``run.json``: what was run, from what, on what, and what came of it."""
    text = json.dumps(dict(values), indent=2, ensure_ascii=False, allow_nan=False, default=str)
    with atomic_write(folder / name) as path:
        # Bytes of a file name that are no UTF-8 become escapes, which JSON has too.
        path.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


def list_versions() -> dict[str, str]:
    """What this runs on, by name."""
    from importlib.metadata import version

    return {
        "rtdetr": version("rtdetr-ops"),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": " ".join(sys.argv),
    }
