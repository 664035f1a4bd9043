# SPDX-License-Identifier: Apache-2.0
"""A detector rewritten for inference: the same numbers from fewer and larger operations."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ..devices import full_float32
from .attention import DeformableAttention, Levels
from .hybrid_encoder import FusionBlock
from .layers import ACTIVATIONS, ConvNorm, FrozenBatchNorm2d
from .model import RTDetrV2Model
from .outputs import Recorder
from .pretrained import Pretrained
from .query_selection import Proposals, Selection

__all__ = ["optimize"]

M = TypeVar("M", bound=Pretrained)

Norm = nn.BatchNorm2d | FrozenBatchNorm2d

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.25}
"""By dtype: most that the numbers of a stage may change, relative to the largest. Rounding grows through some fifty
layers; a weight folded wrongly changes the numbers by their own size."""


def optimize(
    model: M, *, dtype: torch.dtype | None = None, channels_last: bool = True, check: bool = True
) -> M:
    """A copy of ``model`` for inference alone; ``model`` itself stays as it is.

    Normalizations are folded into the convolutions before them, the two convolutions of each RepVGG block become one,
    offsets and attention weights of each deformable attention come from one matrix product, and only the pixels that
    become queries get boxes (``enc_outputs_coord_logits`` is None). The copy is in evaluation mode, trains nothing,
    compiles and moves between devices; it is not meant to be saved.

    Args:
        model: a detector with the weights it will keep.
        dtype: of the copy: ``torch.bfloat16`` is fast on processors and GPUs that have it. None keeps the dtype.
        channels_last: store convolution weights with the channels innermost, as fast convolutions want them.
        check: run both on a small random image and compare the stages.

    Raises:
        RuntimeError: the check failed.

    Source: RepVGG (Ding et al., 2021), sec. 3.3, for merging blocks.
    """
    fast = copy.deepcopy(model).eval().requires_grad_(False)
    for rewrite in (
        _fold_norms,
        _merge_blocks,
        _merge_projections,
        _activate_in_place,
        _leave_out_boxes,
    ):
        rewrite(fast)
    fast = fast.to(dtype=dtype or model.dtype)
    if channels_last:
        fast = fast.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if check:
        _compare(model, fast)
    return fast


def _fold_norms(model: nn.Module) -> None:
    for parent in list(model.modules()):
        for conv_name, norm_name in _pairs(parent):
            conv, norm = getattr(parent, conv_name), getattr(parent, norm_name)
            setattr(parent, conv_name, _folded(conv, norm))
            setattr(parent, norm_name, nn.Identity())


def _pairs(parent: nn.Module) -> Iterator[tuple[str, str]]:
    """Names of a convolution and of the normalization that stands behind it in the same module."""
    children = list(parent.named_children())
    for (conv_name, conv), (norm_name, norm) in pairwise(children):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, Norm):
            yield conv_name, norm_name


def _folded(conv: nn.Conv2d, norm: Norm) -> nn.Conv2d:
    folded = copy.deepcopy(conv)
    # In double, so that a weight is rounded once.
    numbers = (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    mean, variance, scale, shift = (tensor.double() for tensor in numbers)  # type: ignore[union-attr]
    bias = None if conv.bias is None else conv.bias.double()
    weight, bias = fuse_conv_bn_weights(
        conv.weight.double(), bias, mean, variance, norm.eps, scale, shift
    )
    folded.weight = _constant(weight.to(conv.weight.dtype))
    folded.bias = _constant(bias.to(conv.weight.dtype))
    return folded


def _merge_blocks(model: nn.Module) -> None:
    """Both convolutions of a block are linear in the same input: their kernels add up, 1x1 in the middle of 3x3."""
    for fusion in _of_type(model, FusionBlock):
        for index, block in enumerate(fusion.bottlenecks):
            wide, narrow = block.conv1.conv, block.conv2.conv
            merged = ConvNorm(wide.in_channels, wide.out_channels, 3, activation=block.activation)
            merged.conv = wide
            merged.add_module("norm", nn.Identity())
            wide.weight = _constant(wide.weight + nn.functional.pad(narrow.weight, (1, 1, 1, 1)))
            wide.bias = _constant(wide.bias + narrow.bias)
            fusion.bottlenecks[index] = merged


class _MergedAttention(DeformableAttention):
    """The same attention, whose offsets and logits are two parts of one product."""

    projections: nn.Linear

    def project(self, query: Tensor) -> tuple[Tensor, Tensor]:
        # Two of three numbers are offsets: x and y of a point, then its logit.
        parts = self.projections.out_features // 3
        offsets, logits = self.projections(query).split([2 * parts, parts], -1)
        return offsets, logits


def _merge_projections(model: nn.Module) -> None:
    """A layer changes its class, so whatever else it holds stays."""
    for layer in _of_type(model, DeformableAttention):
        pair = (layer.sampling_offsets, layer.attention_weights)
        merged = nn.Linear(pair[0].in_features, sum(linear.out_features for linear in pair))
        merged.weight = _constant(torch.cat([linear.weight for linear in pair]))
        merged.bias = _constant(torch.cat([linear.bias for linear in pair]))
        del layer.sampling_offsets, layer.attention_weights
        layer.projections = merged
        layer.__class__ = _MergedAttention


def _activate_in_place(model: nn.Module) -> None:
    """Nobody needs what a convolution returned once the activation has seen it."""
    for module in model.modules():
        name = getattr(module, "activation", None)
        if isinstance(name, str) and f"{name}_" in ACTIVATIONS:
            module.activation = f"{name}_"  # type: ignore[assignment]


class _SparseBoxesModel(RTDetrV2Model):
    """The same network, in which only the pixels that become queries get boxes."""

    def propose(self, memory: Tensor, levels: Levels) -> Proposals:
        """As the parent's, with anchors in place of boxes."""
        anchors, used = self.anchors(levels, device=memory.device)
        content = self.enc_output(memory * used.to(memory.dtype))
        boxes = anchors.expand(content.shape[0], -1, -1)
        return Proposals(content, self.enc_score_head(content), boxes)

    def choose(self, proposals: Proposals) -> Selection:
        selection = super().choose(proposals)
        return selection._replace(boxes=self.enc_bbox_head(selection.content) + selection.boxes)

    def boxes_of_all_pixels(self, proposals: Proposals) -> Tensor | None:
        return None


@functools.cache
def _sparse(own: type[RTDetrV2Model]) -> type[RTDetrV2Model]:
    return type(own.__name__, (_SparseBoxesModel, own), {})


def _leave_out_boxes(model: nn.Module) -> None:
    for network in _of_type(model, RTDetrV2Model):
        own: type = type(network)
        # A subclass of the caller's keeps what it overrides.
        network.__class__ = _SparseBoxesModel if own is RTDetrV2Model else _sparse(own)


def _of_type(model: nn.Module, kind: type[Any]) -> Iterator[Any]:
    return (module for module in list(model.modules()) if isinstance(module, kind))


def _constant(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.detach(), requires_grad=False)


def _compare(model: Pretrained, fast: Pretrained) -> None:
    """Compare from stage to stage; both decoders start from the same pixels, for a rounding may choose others.

    Raises:
        RuntimeError: they differ.
    """
    channels = model.config.backbone_config.in_channels
    image = torch.rand(1, channels, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode(), full_float32():
        with _evaluating(model):
            expected, selection = _stages(model, image.to(model.device))
        results, _ = _stages(fast, image.to(fast.device), selection)
    limit = TOLERANCE[fast.dtype]
    for name, tensor in expected.items():
        largest = max(tensor.abs().max().item(), 1e-6)
        error = (results[name].to(tensor.dtype) - tensor).abs().max().item() / largest
        if not error <= limit:  # NaN fails
            raise RuntimeError(
                f"optimize: {name} of the rewritten detector differs by {error:.1e} of their largest number; "
                f"in {fast.dtype} at most {limit:.0e} is expected"
            )


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the ``with`` block; afterwards each module is in the mode that it was in."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _stages(
    model: Pretrained, image: Tensor, selection: Selection | None = None
) -> tuple[dict[str, Tensor], Selection]:
    """What each stage makes of ``image``, and the pixels that the decoder started from."""
    network: RTDetrV2Model = next(_of_type(model, RTDetrV2Model))
    if selection is not None:
        selection = selection._replace(content=selection.content.to(model.dtype))
    record = Recorder(attentions=False, states=False)
    maps = network.encoder(network.embed(image), record)
    stages = network.decode(maps, record, selection)
    tensors = {f"map {level} of the encoder": x for level, x in enumerate(maps)}
    tensors["scores of the pixels"] = stages.proposals.scores
    if isinstance(stages.decoded.logits, Tensor):
        tensors["logits"] = stages.decoded.logits
    return tensors | {"boxes": stages.decoded.boxes}, stages.selection
