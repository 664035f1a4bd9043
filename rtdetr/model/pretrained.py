# SPDX-License-Identifier: Apache-2.0
"""What both models share: a configuration, and the ways from and to files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from ..config import RTDetrV2Config
from ..hub import HubOptions
from ..weights import LoadReport
from ..weights.load import load_pretrained
from ..weights.save import save_pretrained

__all__ = ["Pretrained"]

M = TypeVar("M", bound="Pretrained")


class Pretrained(nn.Module):
    """A module with a configuration."""

    load_report: LoadReport | None = None
    """What became of each weight; None for a model that was not loaded."""

    def __init__(self, config: RTDetrV2Config) -> None:
        super().__init__()
        self.config = config

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    @classmethod
    def from_pretrained(
        cls: type[M],
        source: str | Path,
        *,
        config: RTDetrV2Config | str | None = None,
        id2label: dict[int, str] | None = None,
        label2id: dict[str, int] | None = None,
        num_labels: int | None = None,
        ignore_mismatched_sizes: bool = False,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        dtype: torch.dtype | None = None,
    ) -> M:
        """A model with the weights of ``source``, in evaluation mode.

        Args:
            source: a directory with config.json and weights, a name on the Hugging Face hub, a preset, or a file: one
                of ours or of transformers (.safetensors), or an original checkpoint (.pth). Nothing in a file is
                executed.
            config: the configuration, or the name of a preset, instead of the one that comes with the weights. A .pth
                file carries none; it is recognized from names and shapes. Whether sampling is discrete cannot be seen
                there: it is taken from ``dsp`` in the name of the file.
            id2label: names of the classes instead of those in the configuration.
            label2id: the inverse of ``id2label``.
            num_labels: K, instead of names.
            ignore_mismatched_sizes: leave weights of another shape, such as heads for other classes, freshly drawn.
            revision: branch, tag or commit on the hub.
            cache_dir: where downloads are kept.
            token: of the hub.
            local_files_only: do not use the network.
            dtype: of the model that is returned; float32 by default, whatever the file has.

        Raises:
            ModelError: nothing is found, the file is of another kind of model, or weights are missing or of another
                shape. It is a ``ValueError``.
        """
        options = HubOptions(
            revision=revision, cache_dir=cache_dir, token=token, local_files_only=local_files_only
        )
        model, report = load_pretrained(
            cls,
            source,
            config=config,
            labels={"id2label": id2label, "label2id": label2id, "num_labels": num_labels},
            ignore_mismatched_sizes=ignore_mismatched_sizes,
            dtype=dtype,
            options=options,
        )
        model.load_report = report
        return model

    def save_pretrained(self, directory: str | Path, *, processor: Any = None) -> None:
        """Write ``config.json`` and ``model.safetensors``, which transformers loads too.

        Args:
            directory: is created if needed; files of the same names are replaced, each whole.
            processor: its ``preprocessor_config.json`` is written too.
        """
        save_pretrained(self, self.config, directory, processor)
