# SPDX-License-Identifier: Apache-2.0
"""``rtdetr checks``: what is installed here and what it can do; the text to paste into an issue."""

from __future__ import annotations

import importlib
import platform
import warnings
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from .arguments import AsJson
from .console import say, say_json

NAME = "checks"

# What each optional package is for, by the name of its distribution, which is also that of its module but for hyphens.
OPTIONAL = {
    "av": "video",
    "faster-coco-eval": "evaluation",
    "matplotlib": "plots of evaluation and training",
    "scipy": "training",
    "supervision": "to_supervision",
    "triton": "attention on GPUs",
    "onnxruntime": "running exported models",
    "transformers": "comparing; never imported by rtdetr",
    "torchvision": "not needed",
}


def command(as_json: AsJson = False) -> None:
    """Report versions, devices, attention backends and optional packages."""
    report = _report()
    if as_json:
        say_json(report)
        return
    versions = "  ".join(f"{name} {value}" for name, value in report["versions"].items())
    say(f"{versions}  {report['platform']}")
    say(f"devices   {', '.join(report['devices'])}")
    for device, lines in report["attention"].items():
        say(f"attention on {device}")
        for line in lines:
            say(f"  {line}")
    say("build     " + ", ".join(f"{key} {value}" for key, value in report["build"].items()))
    for name, entry in report["optional"].items():
        say(f"optional  {name:<16} {entry['state']:<24} {entry['purpose']}".rstrip())


def _report() -> dict[str, Any]:
    import torch

    import rtdetr_ops

    devices = ["cpu"] + [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    names = [f"cpu ({torch.get_num_threads()} threads)"]
    names += [f"{name} ({torch.cuda.get_device_name(name)})" for name in devices[1:]]
    if len(devices) == 1:
        names.append(
            "cuda: not in this torch build" if torch.version.cuda is None else "cuda: no GPU found"
        )
    attention = {
        device: [
            line.strip()
            for line in str(
                rtdetr_ops.explain(torch.empty(1, 1, 8, 32, device=device))
            ).splitlines()
        ]
        for device in devices
    }
    return {
        "versions": {
            "rtdetr": version("rtdetr-ops"),
            "rtdetr_ops": rtdetr_ops.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": version("numpy"),
            "pillow": version("pillow"),
        },
        "platform": f"{platform.system()} {platform.machine()}",
        "devices": names,
        "attention": attention,
        "build": {key: _plain(value) for key, value in dict(rtdetr_ops.build_info()).items()},
        "optional": {
            name: {"state": _state(name), "purpose": purpose} for name, purpose in OPTIONAL.items()
        },
    }


def _state(name: str) -> str:
    """Its version, "-" if absent, or BROKEN with the reason: installed is not the same as importable."""
    try:
        installed = version(name)
    except PackageNotFoundError:
        return "-"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module(name.replace("-", "_"))
    except Exception as error:
        reason = " ".join(str(error).split())[:80]
        return f"{installed} BROKEN ({type(error).__name__}: {reason})"
    return installed


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | None) else str(value)
