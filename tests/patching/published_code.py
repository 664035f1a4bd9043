# SPDX-License-Identifier: Apache-2.0
"""The signatures that ``patch`` meets in other people's code, each read there at the commit, or in the version, given.

Names and defaults of parameters and names of attributes, nothing else.
"""

from __future__ import annotations

import ast
import inspect
from dataclasses import dataclass
from inspect import Parameter, Signature


@dataclass(frozen=True)
class Published:
    """A function, or the ``forward`` of a class, of a published project.

    Args:
        project: the repository and a commit of it, or the package and a version of it.
        path: the file there.
        symbol: name of the function or class.
        text: the parameters, without ``self`` or ``ctx``.
        attributes: of a layer: the public attributes that its constructors leave on it.
    """

    project: str
    path: str
    symbol: str
    text: str
    attributes: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return "-".join([self.project.partition("@")[0], self.path.rpartition("/")[2], self.symbol])

    @property
    def signature(self) -> Signature:
        return signature(self.text)


def signature(text: str) -> Signature:
    """What ``inspect.signature`` would say of a function with these parameters."""
    arguments = ast.parse(f"def f({text}): ...").body[0].args
    required = len(arguments.args) - len(arguments.defaults)
    defaults = [Parameter.empty] * required + [ast.literal_eval(d) for d in arguments.defaults]
    parameters = [
        Parameter(argument.arg, Parameter.POSITIONAL_OR_KEYWORD, default=default)
        for argument, default in zip(arguments.args, defaults, strict=True)
    ]
    if arguments.kwarg is not None:
        parameters.append(Parameter(arguments.kwarg.arg, Parameter.VAR_KEYWORD))
    return Signature(parameters)


def calls(signature: Signature) -> list[tuple[tuple[str, ...], dict[str, str]]]:
    """Arguments of every call that ``signature`` allows: by position as far as possible and by name from each place."""
    named = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    required = [p.name for p in named if p.default is p.empty]
    names = [p.name for p in named]
    return [
        (tuple(chosen[:count]), {name: name for name in chosen[count:]})
        for chosen in (required, names)
        for count in range(len(chosen) + 1)
    ]


def assert_takes_the_place(replacement: object, signature: Signature) -> None:
    own = inspect.signature(replacement)
    for arguments, keywords in calls(signature):
        bound = own.bind(*arguments, **keywords)
        assert all(name == value for name, value in bound.arguments.items())
    for name, parameter in signature.parameters.items():
        assert parameter.default in (parameter.empty, own.parameters[name].default), name


RT_DETR = "lyuwenyu/RT-DETR@068dfde65f2667ad6555883c69d73de886518cad"
D_FINE = "Peterande/D-FINE@4a1f73a8bcfac736a88abde9596d87f116d780a7"
DEIM = "Intellindust-AI-Lab/DEIM@09d35d53d39ee3145a1e61e3a989b28b9468d1dd"
DEIM_V2 = "Intellindust-AI-Lab/DEIMv2@0fff8d4dcdc272e6cf2d84be31399db471357941"
DEFORMABLE_DETR = "fundamentalvision/Deformable-DETR@11169a60c33333af00a4849f1808023eba96a931"
DINO = "IDEA-Research/DINO@faa8520fe9604c23ad65a48bc583550a44c0e3ab"
MASK_DINO = "IDEA-Research/MaskDINO@3831d8514a3728535ace8d4ecc7d28044c42dd14"
MASK2FORMER = "facebookresearch/Mask2Former@9b0651c6c1d5b3af2e6da0589b719c514ec0d69a"
VIT_ADAPTER = "czczup/ViT-Adapter@fd64a5190f9f4530e8e5961cc87b2a3ad591190b"
BEVFORMER = "fundamentalvision/BEVFormer@66b65f3a1f58caf0507cb2a971b9c0e7f842376c"
GROUNDING_DINO = "IDEA-Research/GroundingDINO@856dde20aee659246248e20734ef9ba5214f5e44"
DETREX = "IDEA-Research/detrex@e244e6c3da3e84566728c52c21fb061d23ce0e2f"
MMCV = "open-mmlab/mmcv@a8073c74bf83d62ec36a103f835faa4837fb6585"
RF_DETR = "roboflow/rf-detr@35ac6ab64634e188bbb0fa3fc5135132f0df45fc"
RF_DETR_1_11_2 = "rfdetr@1.11.2"

_SQUARE = "value, value_spatial_shapes, sampling_locations, attention_weights"
_FLAT = f"{_SQUARE}, num_points_list, method='default'"
_FLAT_OR_LEVEL = f"{_FLAT}, value_shape='default'"

CORES = [
    Published(RT_DETR, path, "deformable_attention_core_func", _SQUARE)
    for path in (
        "rtdetr_pytorch/src/zoo/rtdetr/utils.py",
        "rtdetrv2_pytorch/src/zoo/rtdetr/utils.py",
    )
] + [
    Published(project, path, "deformable_attention_core_func_v2", text)
    for project, path, text in (
        (RT_DETR, "rtdetrv2_pytorch/src/zoo/rtdetr/utils.py", _FLAT),
        (D_FINE, "src/zoo/dfine/utils.py", _FLAT),
        (DEIM, "engine/deim/utils.py", _FLAT_OR_LEVEL),
        (DEIM_V2, "engine/deim/utils.py", _FLAT_OR_LEVEL),
    )
]
"""Functions that a constructor stores as ``ms_deformable_attn_core``, alone or in a partial."""

_CLASSIC = (
    "value, value_spatial_shapes, value_level_start_index, sampling_locations, attention_weights, "
    "im2col_step"
)
_OPS = "ops/functions/ms_deform_attn_func.py"
_BEVFORMER_OPS = "projects/mmdet3d_plugin/bevformer/modules/multi_scale_deformable_attn_function.py"

AUTOGRAD_FUNCTIONS = [
    Published(project, path, symbol, _CLASSIC)
    for project, path, symbol in (
        (DEFORMABLE_DETR, f"models/{_OPS}", "MSDeformAttnFunction"),
        (DINO, f"models/dino/{_OPS}", "MSDeformAttnFunction"),
        (MASK_DINO, f"maskdino/modeling/pixel_decoder/{_OPS}", "MSDeformAttnFunction"),
        (MASK2FORMER, f"mask2former/modeling/pixel_decoder/{_OPS}", "MSDeformAttnFunction"),
        (VIT_ADAPTER, f"detection/{_OPS}", "MSDeformAttnFunction"),
        (DEIM_V2, "engine/backbone/ms_deform_attn.py", "MSDeformAttnFunction"),
        (MMCV, "mmcv/ops/multi_scale_deform_attn.py", "MultiScaleDeformableAttnFunction"),
        (DETREX, "detrex/layers/multi_scale_deform_attn.py", "MultiScaleDeformableAttnFunction"),
        (
            GROUNDING_DINO,
            "groundingdino/models/GroundingDINO/ms_deform_attn.py",
            "MultiScaleDeformableAttnFunction",
        ),
        (BEVFORMER, _BEVFORMER_OPS, "MultiScaleDeformableAttnFunction_fp32"),
    )
]
"""Of a ``torch.autograd.Function`` the parameters of ``forward``; ``apply`` takes them by position."""

FUNCTIONS = [
    Published(project, path, symbol, text)
    for project, path, symbol, text in (
        (
            MMCV,
            "mmcv/ops/multi_scale_deform_attn.py",
            "multi_scale_deformable_attn_pytorch",
            _SQUARE,
        ),
        (
            DETREX,
            "detrex/layers/multi_scale_deform_attn.py",
            "multi_scale_deformable_attn_pytorch",
            _SQUARE,
        ),
        (
            GROUNDING_DINO,
            "groundingdino/models/GroundingDINO/ms_deform_attn.py",
            "multi_scale_deformable_attn_pytorch",
            _SQUARE,
        ),
        (RF_DETR, f"rfdetr/models/{_OPS}", "ms_deform_attn_core_pytorch", _SQUARE),
        (
            RF_DETR_1_11_2,
            f"rfdetr/models/{_OPS}",
            "ms_deform_attn_core_pytorch",
            f"{_SQUARE}, value_spatial_shapes_hw=None",
        ),
    )
]
"""Functions that a forward takes from its module."""

_FORWARD = (
    "query, reference_points, input_flatten, input_spatial_shapes, input_level_start_index, "
    "input_padding_mask=None"
)
_MMCV_FORWARD = (
    "query, key=None, value=None, identity=None, query_pos=None, key_padding_mask=None, "
    "reference_points=None, spatial_shapes=None, level_start_index=None, **kwargs"
)
_PROJECTIONS = {"sampling_offsets", "attention_weights", "value_proj", "output_proj"}
_ATTRIBUTES = frozenset(
    _PROJECTIONS | {"im2col_step", "d_model", "n_levels", "n_heads", "n_points"}
)
_MMCV_ATTRIBUTES = frozenset(
    _PROJECTIONS
    | {"im2col_step", "num_heads", "num_levels", "num_points", "batch_first", "dropout"}
)
_MODULES = "ops/modules/ms_deform_attn.py"

LAYERS = [
    Published(project, path, "MSDeformAttn", text, _ATTRIBUTES)
    for project, path, text in (
        (DEFORMABLE_DETR, f"models/{_MODULES}", _FORWARD),
        (DINO, f"models/dino/{_MODULES}", _FORWARD),
        (MASK_DINO, f"maskdino/modeling/pixel_decoder/{_MODULES}", _FORWARD),
        (MASK2FORMER, f"mask2former/modeling/pixel_decoder/{_MODULES}", _FORWARD),
        (RF_DETR, f"rfdetr/models/{_MODULES}", _FORWARD),
        (
            RF_DETR_1_11_2,
            f"rfdetr/models/{_MODULES}",
            f"{_FORWARD}, input_spatial_shapes_hw=None",
        ),
    )
] + [
    Published(project, path, "MultiScaleDeformableAttention", _MMCV_FORWARD, attributes)
    for project, path, attributes in (
        (
            MMCV,
            "mmcv/ops/multi_scale_deform_attn.py",
            _MMCV_ATTRIBUTES | {"embed_dims", "norm_cfg", "init_cfg"},
        ),
        (DETREX, "detrex/layers/multi_scale_deform_attn.py", _MMCV_ATTRIBUTES | {"embed_dim"}),
    )
]
"""Layers whose whole forward is replaced."""

MS_DEFORM_ATTN = {
    "__init__": "d_model=256, n_levels=4, n_heads=8, n_points=4",
    "_reset_parameters": "",
    "forward": _FORWARD,
}
"""The methods of Deformable DETR's layer, which ``rtdetr_ops.MSDeformAttn`` takes the place of."""
