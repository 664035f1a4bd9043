# SPDX-License-Identifier: Apache-2.0
"""Keywords of transformers' classes that have no parameter of that name here, and what each of them means.

A program written for transformers runs with its import line changed: a documented keyword is a parameter here, another
word for one, without effect because it chooses among ways to the same result, or refused with what to do instead. An
unknown one stays a ``TypeError``. ``tests/rtdetr/test_keywords.py`` compares the tables with transformers' signatures.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

__all__ = ["BACKBONE", "CONFIG", "LOADING", "SAVING", "Keywords", "understands"]

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True)
class Keywords:
    """One table.

    Args:
        synonyms: the parameter that a keyword means, and what makes the parameter's value of the keyword's.
        without_effect: keywords that are taken and dropped.
        refused: what to do instead. ``None`` and ``False`` ask for nothing, so they are dropped.
    """

    synonyms: Mapping[str, tuple[str, Callable[[Any], Any]]] = field(default_factory=dict)
    without_effect: frozenset[str] = frozenset()
    refused: Mapping[str, str] = field(default_factory=dict)

    def translate(self, title: str, keywords: Mapping[str, Any]) -> dict[str, Any]:
        """``keywords`` by their names here.

        Raises:
            TypeError: a keyword is refused.
            ValueError: a parameter is given twice with two values.
        """
        translated: dict[str, Any] = {}
        for word, value in keywords.items():
            asks = value is not None and value is not False
            if word in self.refused and asks:
                raise TypeError(f"{title} does not take {word!r}: {self.refused[word]}.")
            if word in self.synonyms and asks:
                name, convert = self.synonyms[word]
                converted, own = convert(value), keywords.get(name)
                if own is not None and convert(own) != converted:
                    raise ValueError(f"{title}: {word}={value!r} and {name}={own!r} differ")
                translated[name] = converted
            elif not (word in self.synonyms or word in self.without_effect or word in self.refused):
                translated.setdefault(word, value)
        return translated


def understands(words: Keywords) -> Callable[[F], F]:
    """Let a function take the keywords of a table too; its signature stays."""

    def understand(function: F) -> F:
        title = function.__qualname__.removesuffix(".__init__")

        @functools.wraps(function)
        def translating(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **words.translate(title, kwargs))

        return cast("F", translating)

    return understand


def _same(value: Any) -> Any:
    return value


def _stage_numbers(stages: Any) -> Any:
    """``["stage2", "stage3"]`` as ``(2, 3)``; the stem is 0."""
    if not isinstance(stages, (list, tuple)):
        return stages
    words = [str(stage).removeprefix("stage") for stage in stages]
    return tuple(0 if word == "stem" else int(word) if word.isdecimal() else word for word in words)


_BOOKKEEPING = frozenset(
    {
        *("architectures", "model_type", "name_or_path", "_name_or_path", "transformers_version"),
        *("dtype", "torch_dtype", "problem_type", "chunk_size_feed_forward"),
        *("attn_implementation", "_attn_implementation", "experts_implementation"),
        "use_cache",  # which a Trainer sets
    }
)

CONFIG = Keywords(
    without_effect=_BOOKKEEPING | {"disable_custom_kernels"},
    refused={
        "backbone": "pass backbone_config=",
        "backbone_kwargs": "pass backbone_config=",
        "use_timm_backbone": "pass backbone_config=, backbones of timm are not built here",
        "use_pretrained_backbone": "load a whole detector with from_pretrained",
        "per_layer_config": "all layers have one configuration",
    },
)
"""Of RTDetrV2Config."""

BACKBONE = Keywords(
    synonyms={"out_features": ("out_indices", _stage_numbers)},
    without_effect=_BOOKKEEPING
    | {
        *("stage_names", "return_dict", "output_hidden_states", "output_attentions"),
        *("is_encoder_decoder", "id2label", "label2id", "num_labels"),
    },
    refused={"per_layer_config": "all layers have one configuration"},
)
"""Of RTDetrResNetConfig and HGNetV2Config."""

_ONE_DEVICE = "a detector runs on one device; pass device_map="
_FULL_WEIGHTS = "weights are float32, float16 or bfloat16; pass dtype="

LOADING = Keywords(
    synonyms={
        "pretrained_model_name_or_path": ("source", _same),
        "torch_dtype": ("dtype", _same),
    },
    without_effect=frozenset(
        {
            *("attn_implementation", "experts_implementation", "use_kernels", "allow_all_kernels"),
            *("low_cpu_mem_usage", "_fast_init", "disable_mmap", "use_safetensors", "weights_only"),
            *("trust_remote_code", "resume_download", "mirror", "tqdm_class", "generation_config"),
            "offload_buffers",
        }
    ),
    refused={
        "return_unused_kwargs": "a keyword that is not known is an error",
        "state_dict": "call load_state_dict on the model",
        "key_mapping": "call load_state_dict on the model",
        "variant": "name the file, DIRECTORY/model.VARIANT.safetensors",
        "proxies": "set the environment variable HTTPS_PROXY",
        "from_tf": "files of TensorFlow are not read",
        "from_flax": "files of Flax are not read",
        "gguf_file": "files of GGUF are not read",
        "quantization_config": _FULL_WEIGHTS,
        "load_in_8bit": _FULL_WEIGHTS,
        "load_in_4bit": _FULL_WEIGHTS,
        "max_memory": _ONE_DEVICE,
        "offload_folder": _ONE_DEVICE,
        "offload_state_dict": _ONE_DEVICE,
        "tp_plan": _ONE_DEVICE,
        "tp_size": _ONE_DEVICE,
        "device_mesh": _ONE_DEVICE,
        "distributed_config": _ONE_DEVICE,
        "fusion_config": "call optimize on the model",
        "kernel_config": "see rtdetr_ops.use_backend",
        "adapter_kwargs": "adapters are not read",
        "adapter_name": "adapters are not read",
    },
)
"""Of ``from_pretrained``, of models, configurations and image processors."""

SAVING = Keywords(
    synonyms={"save_directory": ("directory", _same)},
    without_effect=frozenset(
        {
            *("max_shard_size", "safe_serialization", "save_function", "token"),
            *("save_original_format", "save_peft_format"),
        }
    ),
    refused={
        "push_to_hub": "upload the directory with huggingface_hub.upload_folder",
        "variant": "rename the file",
        "distributed_checkpoint": "weights are one file",
    },
)
"""Of ``save_pretrained``, likewise."""
