# SPDX-License-Identifier: Apache-2.0
"""Print the memory of a worker after each of eleven epochs over 20,000 boxes: ``worker_memory.py fork FOLDER``.

A program of its own: of a large process, pages that it writes after a fork count as the worker's.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))

import numpy as np
import torch
from data_sets import coco, draw, write_json
from torch.utils.data import Dataset

from rtdetr.data import (
    Augmentation,
    DetectionDataset,
    Key,
    ReadOptions,
    TrainingBatches,
    load_data,
    make_loader,
)

ROLLUP = Path("/proc/self/smaps_rollup")


class WithMemory(Dataset[Any]):
    """A dataset that tells with every fourth image how much memory its process holds."""

    def __init__(self, dataset: DetectionDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, key: Key) -> Any:
        item: Any = self.dataset[key]
        memory = [0, 0] if key.image % 4 else memory_of_process()
        item["labels"]["memory"] = torch.tensor(memory)
        return item


def memory_of_process() -> list[int]:
    """KiB that are resident, and those of them that no other process shares: pages are copied when written."""
    lines = [line.split() for line in ROLLUP.read_text().splitlines()[1:]]
    sizes = {name.rstrip(":"): int(size) for name, size, *_ in lines}
    return [sizes["Rss"], sizes["Private_Clean"] + sizes["Private_Dirty"]]


def measure(method: str, folder: Path) -> list[list[int]]:
    names = tuple(f"{index:03}.png" for index in range(100))
    rng = np.random.default_rng(0)
    document = coco(names)
    document["annotations"] = [
        {"image_id": 10 + index // 200, "category_id": 1, "bbox": [*rng.uniform(0, 40, 2), 6, 5]}
        for index in range(20_000)
    ]
    for name in names:
        draw(folder / name, name)
    write_json(folder / "annotations.json", document)
    split = load_data(folder, ReadOptions(val_fraction=0)).train
    assert split is not None
    dataset: Any = WithMemory(DetectionDataset(split, 32, augmentation=Augmentation().weak()))
    batches = TrainingBatches(len(split), 25)
    loader: Any = make_loader(dataset, batches, workers=1, start_method=method)
    usual = []
    for epoch in range(11):
        batches.set_epoch(epoch)
        memory = torch.stack([labels["memory"] for batch in loader for labels in batch["labels"]])
        # Not the most: a batch that is on its way comes and goes.
        usual.append(memory[memory[:, 0] > 0].median(0).values.tolist())
    return usual


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(sys.argv[1], Path(sys.argv[2]))))
