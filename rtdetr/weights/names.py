# SPDX-License-Identifier: Apache-2.0
"""One table of parameter names, and translation between its columns."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from ..errors import UsageError

__all__ = ["SECOND_NAMES", "from_module_names", "has_heads", "to_module_names", "unwrap"]

SECOND_NAMES = ("class_embed.", "bbox_embed.")
"""Under which the detector of transformers holds the heads of its decoder once more."""

COLUMNS = ("original", "hub", "module")

_RESNET = "model.backbone.model.encoder.stages.#.layers.#."
_HGNET = "model.backbone.model.encoder.stages.#."
_AIFI = ("encoder.encoder.#.layers.#.", "model.encoder.encoder.#.layers.#.")
_AIFI_MODULE = "model.encoder.aifi.#.layers.#."
_LAYER = ("decoder.decoder.layers.#.", "model.decoder.layers.#.")

# original | hub files and transformers 4 | our modules and transformers 5. Where two names are given, the hub and our
# modules agree. Each # stands for the same number in every column, @ for a number with or without a letter. {q,k,v} are
# three parameters that the original stacks in one, in that order. Of rows that fit a name the first one counts, so a
# second spelling of the same parameter comes after the one that is written.
_ROWS: tuple[tuple[str, ...], ...] = (
    *(
        (f"backbone.conv1.conv1_{n + 1}.{theirs}.", f"model.backbone.model.embedder.embedder.{n}.{ours}.")
        for n in range(3)
        for theirs, ours in (("conv", "convolution"), ("norm", "normalization"))
    ),
    *(
        (f"backbone.res_layers.#.blocks.#.{branch}.{theirs}.", f"{_RESNET}{layer}.{ours}.")
        for branch, layer in (
            ("branch2a", "layer.0"),
            ("branch2b", "layer.1"),
            ("branch2c", "layer.2"),
            ("short", "shortcut"),
            ("short.conv", "shortcut.1"),  # after a pooling
        )
        for theirs, ours in (("conv", "convolution"), ("norm", "normalization"))
    ),
    *(
        (f"backbone.{stem}.", f"model.backbone.model.embedder.{ours}.")
        for stem, ours in (
            ("stem.stem2a.conv.1", "stem2a.convolution"),  # after a padding
            ("stem.stem2b.conv.1", "stem2b.convolution"),
            ("stem.stem#.conv", "stem#.convolution"),
            ("stem.stem@.bn", "stem@.normalization"),
            ("stem.stem@.lab", "stem@.lab"),
        )
    ),
    *(
        (f"backbone.stages.#.{place}.{theirs}.", f"{_HGNET}{layer}.{ours}.")
        for place, layer in (
            ("downsample", "downsample"),
            ("blocks.#.layers.#", "blocks.#.layers.#"),
            ("blocks.#.layers.#.conv1", "blocks.#.layers.#.conv1"),
            ("blocks.#.layers.#.conv2", "blocks.#.layers.#.conv2"),
            ("blocks.#.aggregation_squeeze_conv", "blocks.#.aggregation.0"),
            ("blocks.#.aggregation_excitation_conv", "blocks.#.aggregation.1"),
        )
        for theirs, ours in (("conv", "convolution"), ("bn", "normalization"), ("lab", "lab"))
    ),
    ("encoder.input_proj.#.conv.", "model.encoder_input_proj.#.0."),
    ("encoder.input_proj.#.norm.", "model.encoder_input_proj.#.1."),
    ("encoder.input_proj.#.0.", "model.encoder_input_proj.#.0."),  # version 1
    ("encoder.input_proj.#.1.", "model.encoder_input_proj.#.1."),
    *(
        (_AIFI[0] + original, _AIFI[1] + hub, _AIFI_MODULE + module)
        for original, hub, module in (
            ("self_attn.in_proj_", "self_attn.{q,k,v}_proj.", "self_attn.{q,k,v}_proj."),
            ("self_attn.out_proj.", "self_attn.out_proj.", "self_attn.o_proj."),
            ("linear1.", "fc1.", "mlp.fc1."),
            ("linear2.", "fc2.", "mlp.fc2."),
            ("norm1.", "self_attn_layer_norm.", "self_attn_layer_norm."),
            ("norm2.", "final_layer_norm.", "final_layer_norm."),
        )
    ),
    *(
        (f"encoder.{part}.{layer}.", f"model.encoder.{part}.{layer}.")
        for part, layers in (
            ("lateral_convs.#", ("",)),
            ("downsample_convs.#", ("",)),
            ("fpn_blocks.#", ("conv#.", "bottlenecks.#.conv#.")),
            ("pan_blocks.#", ("conv#.", "bottlenecks.#.conv#.")),
        )
        for layer in (f"{prefix}{kind}" for prefix in layers for kind in ("conv", "norm"))
    ),
    ("decoder.input_proj.#.conv.", "model.decoder_input_proj.#.0."),
    ("decoder.input_proj.#.norm.", "model.decoder_input_proj.#.1."),
    ("decoder.enc_output.proj.", "model.enc_output.0."),
    ("decoder.enc_output.norm.", "model.enc_output.1."),
    ("decoder.enc_output.#.", "model.enc_output.#."),  # version 1
    ("decoder.enc_score_head.", "model.enc_score_head."),
    ("decoder.enc_bbox_head.layers.#.", "model.enc_bbox_head.layers.#."),
    ("decoder.denoising_class_embed.", "model.denoising_class_embed."),
    ("decoder.tgt_embed.", "model.weight_embedding."),
    ("decoder.query_pos_head.layers.#.", "model.decoder.query_pos_head.layers.#."),
    *(
        (_LAYER[0] + original, _LAYER[1] + hub, _LAYER[1] + module)
        for original, hub, module in (
            ("self_attn.in_proj_", "self_attn.{q,k,v}_proj.", "self_attn.{q,k,v}_proj."),
            ("self_attn.out_proj.", "self_attn.out_proj.", "self_attn.o_proj."),
            *(
                (f"cross_attn.{name}.", f"encoder_attn.{name}.", f"encoder_attn.{name}.")
                for name in ("sampling_offsets", "attention_weights", "value_proj", "output_proj")
            ),
            ("cross_attn.num_points_scale", "encoder_attn.n_points_scale", "encoder_attn.n_points_scale"),
            ("linear1.", "fc1.", "mlp.fc1."),
            ("linear2.", "fc2.", "mlp.fc2."),
            ("norm1.", "self_attn_layer_norm.", "self_attn_layer_norm."),
            ("norm2.", "encoder_attn_layer_norm.", "encoder_attn_layer_norm."),
            ("norm3.", "final_layer_norm.", "final_layer_norm."),
        )
    ),
    ("decoder.dec_score_head.#.", "model.decoder.class_embed.#."),
    ("decoder.dec_bbox_head.#.layers.#.", "model.decoder.bbox_embed.#.layers.#."),
    # The detector holds its heads under two names; transformers 4 wrote both.
    ("decoder.dec_score_head.#.", "class_embed.#.", "model.decoder.class_embed.#."),
    ("decoder.dec_bbox_head.#.layers.#.", "bbox_embed.#.layers.#.", "model.decoder.bbox_embed.#.layers.#."),
)  # fmt: skip

_DROPPED = re.compile(r"decoder\.(anchors|valid_mask)|encoder\.pos_embed\d+")
"""Tables for one input size, which the original keeps among its weights."""

_ENDS = "weight|bias|running_mean|running_var|num_batches_tracked|scale"
_QKV = "qkv"


@dataclass(frozen=True)
class Rule:
    """One row: a pattern and a template for each column."""

    patterns: tuple[re.Pattern[str], ...]
    templates: tuple[str, ...]

    @classmethod
    def of(cls, row: tuple[str, ...]) -> Rule:
        names = (row[0], row[1], row[-1])
        return cls(tuple(map(_pattern, names)), names)

    def translate(self, name: str, source: int, target: int) -> str | None:
        """``name`` in the other column; None where the row does not fit. Packed parameters keep their braces."""
        match = self.patterns[source].fullmatch(name)
        if match is None:
            return None
        *numbers, end = [part for part in match.groups() if part is not None]
        parts = re.split("[#@]", self.templates[target])
        numbers += [""] * (len(parts) - 1 - len(numbers))
        return "".join(map("".join, zip(parts, [*numbers, end], strict=True)))


def _pattern(template: str) -> re.Pattern[str]:
    pieces = {
        "#": r"(\d+)",
        "@": r"(\d+[ab]?)",
        "{q,k,v}": r"\{q,k,v\}",
    }
    parts = re.split(r"(#|@|\{q,k,v\})", template)
    body = "".join(pieces.get(part, re.escape(part)) for part in parts)
    open_end = template.endswith((".", "_"))
    return re.compile(f"{body}({_ENDS})" if open_end else f"{body}()")


RULES = tuple(map(Rule.of, _ROWS))


@cache
def _translate(name: str, source: int, target: int) -> str | None:
    for rule in RULES:
        translated = rule.translate(name, source, target)
        if translated is not None:
            return translated
    return None


def _is_dropped(name: str) -> bool:
    """Whether the original keeps something under this name that is no weight."""
    return _DROPPED.fullmatch(name) is not None


def has_heads(model: nn.Module) -> bool:
    """Whether ``model`` is a detector, or ends with the states of the decoder."""
    return hasattr(model, "class_embed")


WRAPPERS = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""Parts of names that torch adds around a module: DataParallel, compile, FSDP, activation checkpoints."""


def unwrap(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``state`` without what wrappers put into its names.

    A trainer that holds the model as an attribute puts the attribute's name, which may be any, before all names. As
    many first parts are taken off as leave the fewest unknown names.
    """
    state = {_without_wrappers(name): tensor for name, tensor in state.items()}
    best, fewest = state, len(to_module_names(state)[1])
    while (
        fewest
        and len({name.split(".")[0] for name in state}) == 1
        and all("." in name for name in state)
    ):
        state = {name.partition(".")[2]: tensor for name, tensor in state.items()}
        unknown = len(to_module_names(state)[1])
        if unknown < fewest:
            best, fewest = state, unknown
    return best


def _without_wrappers(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def to_module_names(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """``state`` under the names of our modules, whichever column its names are from, and the names of no column."""
    translated: dict[str, Tensor] = {}
    unknown = []
    for name, tensor in state.items():
        if _is_dropped(name):
            continue
        renamed = _module_name(name)
        is_packed = renamed is not None and "{q,k,v}" in renamed
        if renamed is None or (is_packed and (not tensor.dim() or len(tensor) % len(_QKV))):
            unknown.append(name)
        elif is_packed:
            for letter, part in zip(_QKV, tensor.chunk(3), strict=True):
                translated[renamed.replace("{q,k,v}", letter)] = part
        else:
            translated[renamed] = tensor
    return translated, unknown


def from_module_names(state: Mapping[str, Tensor], column: str) -> dict[str, Tensor]:
    """``state`` of our modules under the names of ``"original"`` or ``"hub"``. Second names are left out."""
    target = COLUMNS.index(column)
    translated: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.startswith(SECOND_NAMES):
            continue
        packed = _pack(name)
        if column == "original" and packed != name:
            if "q_proj" in name:
                parts = [state[packed.replace("{q,k,v}", letter)] for letter in _QKV]
                translated[_known(packed, target)] = torch.cat(parts)
            continue
        translated[_unpack(_known(packed, target), name)] = tensor
    return translated


def _module_name(name: str) -> str | None:
    packed = _pack(name)
    for source in (COLUMNS.index("module"), COLUMNS.index("hub")):
        renamed = _translate(packed, source, COLUMNS.index("module"))
        if renamed is not None:
            return _unpack(renamed, name)
    renamed = _translate(name, COLUMNS.index("original"), COLUMNS.index("module"))
    if renamed is None and not name.startswith("model."):
        return _module_name(f"model.{name}")  # transformers' model without heads has no prefix
    return renamed


def _known(name: str, target: int) -> str:
    renamed = _translate(name, COLUMNS.index("module"), target)
    if renamed is None:
        raise UsageError(
            f"{name}: no weight of a detector as files have it. What optimize() returns is not meant to be saved: save "
            "the model it was made from."
        )
    return renamed


def _pack(name: str) -> str:
    return re.sub(r"\.[qkv]_proj\.", ".{q,k,v}_proj.", name)


def _unpack(template: str, name: str) -> str:
    match = re.search(r"\.([qkv])_proj\.", name)
    return template.replace("{q,k,v}", match[1]) if match else template
