# SPDX-License-Identifier: Apache-2.0
"""Every place ``patch`` knows, as data: how to recognize it and which adapter goes there.

A rule matches by name *and* by parameter list, so code that merely shares a name is left alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from . import adapters

__all__ = [
    "CORE",
    "CORES",
    "FAMILIES",
    "FORWARDS",
    "FUNCTIONS",
    "CoreRule",
    "ForwardRule",
    "FunctionRule",
    "LayerRule",
]


@dataclass(frozen=True)
class FunctionRule:
    """A function that a forward looks up in its module at call time; replaced there, for the whole process.

    Args:
        symbol: its name in that module.
        parameters: its parameter names (of an ``autograd.Function``: those of ``forward`` after ``ctx``).
        replacement: what takes its place.
        package: only a function of this package; None for any.
    """

    symbol: str
    parameters: tuple[str, ...]
    replacement: Any
    package: str | None = None


@dataclass(frozen=True)
class ForwardRule:
    """A class whose ``forward`` is replaced: on one layer at a time, or on the class.

    Args:
        library: names the rule in pickled layers; never changes.
        class_name: name of the class that defines the forward.
        parameters: parameter names of the forward, after ``self``.
        replacement: the new forward.
        attributes: the public attributes the layer must have, no more and no fewer, so that a clone with an option
            of its own is not mistaken for the original. None where the forward reads nothing of the layer; only
            then can the class as a whole be patched.
    """

    library: str
    class_name: str
    parameters: tuple[str, ...]
    replacement: Callable[..., Any]
    attributes: frozenset[str] | None = None
    attribute: str = "forward"


CORE = "ms_deformable_attn_core"


@dataclass(frozen=True)
class CoreRule:
    """A class whose constructor stores the function as ``self.ms_deformable_attn_core``.

    Args:
        library: names the rule in pickled layers; never changes.
        symbol: name of the stored function, or of the one inside a ``functools.partial``.
        parameters: its parameter names.
        replacement: what the layer gets to call instead, with the keywords its partial had bound.
        differences: where the results differ from the original's, by the ``method`` that its partial has bound.
    """

    library: str
    symbol: str
    parameters: tuple[str, ...]
    replacement: Callable[..., Any]
    differences: tuple[tuple[str, str], ...] = ()
    attribute: str = CORE


LayerRule: TypeAlias = ForwardRule | CoreRule

_SQUARE = ("value", "value_spatial_shapes", "sampling_locations", "attention_weights")
_SQUARE_ON_HOST = (*_SQUARE, "value_spatial_shapes_hw")
_FLAT = (*_SQUARE, "num_points_list", "method")
_FLAT_OR_LEVEL = (*_FLAT, "value_shape")
_CLASSIC = (
    "value",
    "value_spatial_shapes",
    "value_level_start_index",
    "sampling_locations",
    "attention_weights",
    "im2col_step",
)

FUNCTIONS = (
    FunctionRule("multi_scale_deformable_attention_v2", _FLAT, adapters.flat_points),
    FunctionRule("multi_scale_deformable_attention", _SQUARE, adapters.square_points),
    FunctionRule("multi_scale_deformable_attn_pytorch", _SQUARE, adapters.square_points),
    FunctionRule("ms_deform_attn_core_pytorch", _SQUARE, adapters.channels_first, package="rfdetr"),
    FunctionRule(
        "ms_deform_attn_core_pytorch",
        _SQUARE_ON_HOST,
        adapters.channels_first_on_host,
        package="rfdetr",
    ),
    FunctionRule("MSDeformAttnFunction", _CLASSIC, adapters.ClassicFunction),
    FunctionRule("MultiScaleDeformableAttnFunction", _CLASSIC, adapters.ClassicFunction),
    FunctionRule(
        "MultiScaleDeformableAttnFunction_fp32", _CLASSIC, adapters.ClassicFunctionFloat32
    ),
)

_CLAMPED_TO_THE_HEIGHT = (
    (
        "discrete",
        "discrete sampling clamps x to the width of a level, the original to its height: results differ on levels that "
        "are not square",
    ),
)

CORES = (
    CoreRule(
        "transformers D-FINE",
        "multi_scale_deformable_attention_v2",
        _FLAT,
        adapters.flat_points,
    ),
    CoreRule(
        "RT-DETRv2, D-FINE",
        "deformable_attention_core_func_v2",
        _FLAT,
        adapters.flat_points,
        _CLAMPED_TO_THE_HEIGHT,
    ),
    CoreRule(
        "DEIM, DEIMv2",
        "deformable_attention_core_func_v2",
        _FLAT_OR_LEVEL,
        adapters.flat_or_level_points,
        _CLAMPED_TO_THE_HEIGHT,
    ),
    CoreRule("RT-DETR", "deformable_attention_core_func", _SQUARE, adapters.square_points),
)

_DEFORMABLE_DETR_PARAMETERS = (
    "query",
    "reference_points",
    "input_flatten",
    "input_spatial_shapes",
    "input_level_start_index",
    "input_padding_mask",
)
_PROJECTIONS = {"sampling_offsets", "attention_weights", "value_proj", "output_proj", "im2col_step"}
_MMCV_PARAMETERS = (
    "query",
    "key",
    "value",
    "identity",
    "query_pos",
    "key_padding_mask",
    "reference_points",
    "spatial_shapes",
    "level_start_index",
    "kwargs",
)
_DEFORMABLE_DETR_ATTRIBUTES = _PROJECTIONS | {"d_model", "n_levels", "n_heads", "n_points"}
_MMCV_ATTRIBUTES = _PROJECTIONS | {
    "num_heads",
    "num_levels",
    "num_points",
    "batch_first",
    "dropout",
}

FORWARDS = (
    ForwardRule(
        "transformers",
        "MultiScaleDeformableAttention",
        (
            "value",
            "value_spatial_shapes",
            "value_spatial_shapes_list",
            "level_start_index",
            "sampling_locations",
            "attention_weights",
            "im2col_step",
        ),
        adapters.transformers_forward,
    ),
    ForwardRule(
        "Deformable-DETR",
        "MSDeformAttn",
        _DEFORMABLE_DETR_PARAMETERS,
        adapters.deformable_detr_forward,
        frozenset(_DEFORMABLE_DETR_ATTRIBUTES),
    ),
    ForwardRule(
        "RF-DETR",
        "MSDeformAttn",
        (*_DEFORMABLE_DETR_PARAMETERS, "input_spatial_shapes_hw"),
        adapters.rf_detr_forward,
        frozenset(_DEFORMABLE_DETR_ATTRIBUTES),
    ),
    ForwardRule(
        "mmcv",
        "MultiScaleDeformableAttention",
        _MMCV_PARAMETERS,
        adapters.mmcv_forward,
        frozenset(_MMCV_ATTRIBUTES | {"embed_dims", "norm_cfg", "init_cfg"}),
    ),
    ForwardRule(
        "detrex",
        "MultiScaleDeformableAttention",
        _MMCV_PARAMETERS,
        adapters.mmcv_forward,
        frozenset(_MMCV_ATTRIBUTES | {"embed_dim"}),
    ),
)

FAMILIES = {
    name: f"transformers.models.{name}.modeling_{name}"
    for name in (
        "d_fine",
        "deformable_detr",
        "deimv2",
        "grounding_dino",
        "lw_detr",
        "mask2former",
        "mm_grounding_dino",
        "omdet_turbo",
        "oneformer",
        "pp_doclayout_v2",
        "pp_doclayout_v3",
        "pp_doclayout_v4",
        "rf_detr",
        "rt_detr",
        "rt_detr_v2",
    )
}
"""Short names of families of transformers and the module of each that holds its attention."""
