# SPDX-License-Identifier: Apache-2.0
"""Damaged checkpoints and settings: a model folder or file is loaded and used, or refused in a sentence."""

from __future__ import annotations

import json
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

import safetensors.torch
import torch
from PIL import Image
from tiny_detector import save_tiny

import rtdetr
from rtdetr.errors import RTDetrError

from .damage import damage_bytes, damage_json
from .forked import Case
from .outcomes import Outcome, attempt

MEMORY = 8 * 2**30
"""Address space of a case, in bytes: a file of a megabyte that asks for more is an attack."""

SETTINGS = ("config.json", "preprocessor_config.json")
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


def prepare_settings(folder: Path) -> Case:
    """config.json, preprocessor_config.json or the index of a sharded checkpoint, one value or more changed."""
    sound = _save_sharded(folder)

    def run(seed: int) -> Outcome:
        random = Random(seed)
        name = random.choice((*SETTINGS, INDEX))
        damaged = damage_json((sound / name).read_text(), random)
        return _use(_with_file(sound, name, damaged.encode(errors="replace"), seed))

    return run


def prepare_weights(folder: Path) -> Case:
    """A safetensors file, its bytes or its header changed."""
    sound = save_tiny(folder / "sound")
    data = (sound / WEIGHTS).read_bytes()

    def run(seed: int) -> Outcome:
        random = Random(seed)
        change = damage_bytes if random.random() < 0.5 else _damage_header
        return _use(_with_file(sound, WEIGHTS, change(data, random), seed))

    return run


def prepare_pickles(folder: Path) -> Case:
    """An original ``.pth`` file, its bytes changed; beside a sound configuration."""
    sound = save_tiny(folder / "sound")
    model = rtdetr.RTDetrV2ForObjectDetection.from_pretrained(sound)
    rtdetr.save_original(model, folder / "sound.pth")
    data = (folder / "sound.pth").read_bytes()
    config = rtdetr.RTDetrV2Config.from_pretrained(sound)

    def run(seed: int) -> Outcome:
        file = folder / f"{os.getpid()}.pth"
        file.write_bytes(damage_bytes(data, Random(seed)))
        return _use(file, config)

    return run


def _save_sharded(folder: Path) -> Path:
    """The tiny model with its weights in two files and an index."""
    sound = save_tiny(folder / "sound")
    tensors = safetensors.torch.load_file(sound / WEIGHTS)
    (sound / WEIGHTS).unlink()
    names = sorted(tensors)
    shards = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, part in shards.items():
        safetensors.torch.save_file({name: tensors[name] for name in part}, sound / file)
    places = {name: file for file, part in shards.items() for name in part}
    (sound / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return sound


def _damage_header(data: bytes, random: Random) -> bytes:
    """The JSON at the start of a safetensors file, its length kept true."""
    length = int.from_bytes(data[:8], "little")
    header = damage_json(data[8 : 8 + length].decode(), random).encode(errors="replace")
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


def _with_file(sound: Path, name: str, data: bytes, seed: int) -> Path:
    """A copy of a model folder in which one file is another."""
    folder = sound.parent / f"damaged-{os.getpid()}-{seed}"
    folder.mkdir()
    for file in sound.iterdir():
        if file.name != name:
            (folder / file.name).symlink_to(file)
    (folder / name).write_bytes(data)
    return folder


def _use(source: Path, config: rtdetr.RTDetrV2Config | None = None) -> Outcome:
    """Load a model and detect with it, under a limit of memory."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    torch.set_num_threads(1)
    try:
        return attempt(_detect(source, config), (RTDetrError,))
    finally:
        if source.is_dir():
            shutil.rmtree(source)


def _detect(source: Path, config: rtdetr.RTDetrV2Config | None) -> Callable[[], object]:
    def call() -> None:
        detector = rtdetr.RTDETR(source, device="cpu", config=config)
        detector(Image.new("RGB", (48, 32), "gray"), threshold=0.3)

    return call
