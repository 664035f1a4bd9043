# SPDX-License-Identifier: Apache-2.0
"""What both models share: a configuration, and the ways from and to files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, overload

import torch
from torch import nn

from ..config import RTDetrV2Config
from ..devices import find_device, find_dtype
from ..errors import UsageError
from ..hub import HubOptions
from ..keywords import LOADING, SAVING, understands
from ..weights import LoadReport
from ..weights.load import load_pretrained
from ..weights.save import save_pretrained

__all__ = ["Pretrained"]

M = TypeVar("M", bound="Pretrained")

Device = str | int | torch.device


class Pretrained(nn.Module):
    """A module with a configuration."""

    load_report: LoadReport | None = None
    """What became of each weight; None for a model that was not loaded."""

    base_model_prefix: ClassVar[str] = "model"
    main_input_name: ClassVar[str] = "pixel_values"

    def __init__(self, config: RTDetrV2Config) -> None:
        nn.Module.__init__(self)  # not super(): see rtdetr.transformers
        if not isinstance(config, RTDetrV2Config):
            raise TypeError(f"config: expected an RTDetrV2Config, got {type(config).__name__}")
        config.validate()
        self.config = config

    @property
    def device(self) -> torch.device:
        return self._weight().device

    @property
    def dtype(self) -> torch.dtype:
        return self._weight().dtype

    def _weight(self) -> torch.Tensor:
        """Any weight. In a replica of ``DataParallel`` tensors stand in the place of parameters."""
        parameter = next(self.parameters(), None)
        if parameter is not None:
            return parameter
        base: Any = getattr(self, self.base_model_prefix, self)
        weight: torch.Tensor = base.enc_output[0].weight
        return weight

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """How many numbers the parameters are.

        Args:
            only_trainable: count those alone that are trained.
            exclude_embeddings: leave out the label embedding and learned queries.
        """
        embeddings = {
            id(parameter)
            for module in self.modules()
            if isinstance(module, nn.Embedding) and exclude_embeddings
            for parameter in module.parameters()
        }
        return sum(
            parameter.numel()
            for parameter in self.parameters()
            if id(parameter) not in embeddings and (parameter.requires_grad or not only_trainable)
        )

    @overload
    @classmethod
    def from_pretrained(
        cls: type[M],
        source: str | Path,
        *,
        output_loading_info: Literal[True],
        **options: Any,
    ) -> tuple[M, dict[str, Any]]: ...
    @overload
    @classmethod
    def from_pretrained(
        cls: type[M],
        source: str | Path,
        *,
        output_loading_info: Literal[False] = ...,
        **options: Any,
    ) -> M: ...
    @classmethod
    @understands(LOADING)
    def from_pretrained(
        cls: type[M],
        source: str | Path,
        *,
        config: RTDetrV2Config | str | Path | None = None,
        ignore_mismatched_sizes: bool = False,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
        subfolder: str | None = None,
        dtype: str | torch.dtype | None = None,
        device_map: Device | Mapping[str, Device] | None = None,
        output_loading_info: bool = False,
        **changes: Any,
    ) -> M | tuple[M, dict[str, Any]]:
        """A model with the weights of ``source``, in evaluation mode.

        Args:
            source: a directory with config.json and weights, a name on the Hugging Face hub, a preset, or a file: one
                of ours or of transformers (.safetensors), or an original checkpoint (.pth). Nothing in a file is
                executed.
            config: the configuration, or a preset, directory or hub name that has it, instead of the one that comes
                with the weights. A .pth file carries none; it is recognized from names and shapes. Whether sampling is
                discrete cannot be seen there: it is taken from ``dsp`` in the name of the file.
            ignore_mismatched_sizes: leave weights of another shape, such as heads for other classes, freshly drawn.
            revision: branch, tag or commit on the hub.
            cache_dir: where downloads are kept.
            token: of the hub.
            local_files_only: do not use the network.
            force_download: download again what is in the cache.
            subfolder: of the directory or repository.
            dtype: of the model that is returned, "float16" or ``torch.float16``; float32 by default, whatever the file
                has; "auto" for that of the file.
            device_map: the one device to put the model on; "auto" is the first GPU if there is one.
            output_loading_info: return the model, and as a dict what became of its weights; see ``load_report``.
            **changes: fields of the configuration to take instead: ``num_labels``, ``id2label`` and ``label2id``, of
                which one replaces all, or any other. Keywords of transformers that choose among ways to load are taken
                and have no effect; see :mod:`rtdetr.keywords`.

        Raises:
            ModelError: nothing is found, the file is of another kind of model, a field of its configuration is out of
                range, or weights are missing or of another shape. It is a ``ValueError``.
            UsageError: no such dtype or device.
            TypeError: an unknown keyword, with the nearest known one.
            RuntimeError: the default device is "meta", where nothing can be loaded.
        """
        if torch.get_default_device().type == "meta":
            raise RuntimeError(
                "from_pretrained: nothing can be loaded on the meta device. Leave the block of "
                'torch.device("meta"), or build the model from its configuration.'
            )
        device = None if device_map is None else _one_device(device_map)
        model, report = load_pretrained(
            cls,
            source,
            config=config,
            changes={
                name: value for name, value in changes.items() if not _is_default(name, value)
            },
            ignore_mismatched_sizes=ignore_mismatched_sizes,
            dtype=_resolve_dtype(dtype),
            options=HubOptions(
                revision=revision,
                cache_dir=cache_dir,
                token=token,
                local_files_only=local_files_only,
                force_download=force_download,
                subfolder=subfolder,
            ),
        )
        model.load_report = report
        if device is not None:
            model.to(device)
        return (model, report.loading_info()) if output_loading_info else model

    @understands(SAVING)
    def save_pretrained(
        self,
        directory: str | Path,
        *,
        processor: Any = None,
        state_dict: Mapping[str, torch.Tensor] | None = None,
        is_main_process: bool = True,
    ) -> None:
        """Write ``config.json`` and ``model.safetensors``, which transformers loads too.

        Args:
            directory: is created if needed; files of the same names are replaced, each whole.
            processor: its ``preprocessor_config.json`` is written too.
            state_dict: weights to write instead of the model's own, under the names of its ``state_dict``.
            is_main_process: False writes nothing: of several processes one should write.
        """
        if is_main_process:
            save_pretrained(self, self.config, directory, processor, state_dict)

    def gradient_checkpointing_enable(self, *_: Any, **__: Any) -> None:
        """Refuse: see the error.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "gradient_checkpointing: this detector keeps its activations. Train with a smaller batch or image."
        )

    activation_checkpointing_enable = gradient_checkpointing_enable


def _is_default(name: str, value: Any) -> bool:
    """Whether a change of the labels asks for nothing."""
    return value is None and name in ("num_labels", "id2label", "label2id")


def _one_device(device_map: Device | Mapping[str, Device]) -> torch.device:
    devices = set(device_map.values()) if isinstance(device_map, Mapping) else {device_map}
    if len(devices) != 1 or devices & {"balanced", "balanced_low_0", "sequential", "disk"}:
        raise UsageError(f"device_map: expected one device for the whole model, got {device_map!r}")
    return find_device(devices.pop())


def _resolve_dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    """None for "auto", the dtype of the weights; float64 is for tests, and has no word."""
    if dtype is None or isinstance(dtype, torch.dtype):
        is_float = dtype is None or dtype.is_floating_point
        if not is_float:
            raise UsageError(f"dtype: expected a floating dtype, got {dtype}")
        return dtype or torch.float32
    if dtype == "auto":
        return None
    # Whether a CPU is fast at it is a question of detectors, not of loading.
    return find_dtype(dtype, torch.device("cuda"))
