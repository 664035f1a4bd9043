# SPDX-License-Identifier: Apache-2.0
"""Layers that several parts of the network share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = [
    "ACTIVATIONS",
    "ConvNorm",
    "FeedForward",
    "FrozenBatchNorm2d",
    "MLPHead",
    "inverse_sigmoid",
    "norm_type",
    "to_tokens",
]

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "silu": functional.silu,
    "gelu": functional.gelu,  # the exact form, with erf
    "relu_": partial(functional.relu, inplace=True),  # these two for inference
    "silu_": partial(functional.silu, inplace=True),
}


def inverse_sigmoid(x: Tensor, eps: float = 1e-5) -> Tensor:
    """The logit of ``x``, which is first brought into [0, 1]; both ``x`` and ``1 - x`` count as at least ``eps``."""
    x = x.clamp(0, 1)
    return (x.clamp(min=eps) / (1 - x).clamp(min=eps)).log()


def to_tokens(x: Tensor) -> Tensor:
    """Pixels [B, C, H, W] as tokens [B, H*W, C], row by row."""
    if x.requires_grad and x.shape[0] == 1:
        x = _ContiguousGradient.apply(x)  # type: ignore[no-untyped-call]
    return x.flatten(2).transpose(1, 2)


class _ContiguousGradient(torch.autograd.Function):
    """The identity, whose gradient is contiguous.

    Tokens give a gradient whose channels are last. With one image, batch normalization on the CPU (seen in torch 2.13)
    takes such a gradient for one whose channels are first, and trains on other numbers without an error.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.contiguous()


class FrozenBatchNorm2d(nn.Module):
    """Batch normalization whose four tensors are buffers: nothing is trained, nothing follows the batch."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        initial = nn.BatchNorm2d(channels)
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, getattr(initial, name).detach())

    def forward(self, x: Tensor) -> Tensor:
        return functional.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
        )

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *arguments: Any
    ) -> None:
        # A trained layer also counts its batches; here nothing does.
        state_dict.pop(f"{prefix}num_batches_tracked", None)
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    def extra_repr(self) -> str:
        return f"{self.weight.numel()}, eps={self.eps}"


def norm_type(frozen: bool) -> type[nn.BatchNorm2d] | type[FrozenBatchNorm2d]:
    return FrozenBatchNorm2d if frozen else nn.BatchNorm2d


class ConvNorm(nn.Module):
    """Convolution without bias, batch normalization, activation (None: none).

    The padding keeps the size of a map where the kernel is odd and the stride 1. ``names`` are those of the two
    children, which a state dict shows; a subclass may have others.
    """

    names: ClassVar[tuple[str, str]] = ("conv", "norm")

    conv: nn.Conv2d
    norm: nn.Module

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        *,
        frozen: bool = False,
        activation: str | None = None,
        groups: int = 1,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        padding = (kernel_size - 1) // 2
        shape = (in_channels, out_channels, kernel_size, stride, padding)
        conv, norm = self.names
        self.add_module(conv, nn.Conv2d(*shape, groups=groups, bias=False))
        self.add_module(norm, norm_type(frozen)(out_channels, eps))
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        conv, norm = self.names
        x = getattr(self, norm)(getattr(self, conv)(x))
        return x if self.activation is None else ACTIVATIONS[self.activation](x)


class FeedForward(nn.Module):
    """The two linear layers of a transformer layer, without its residual."""

    def __init__(
        self, width: int, hidden: int, activation: str, dropout: float, hidden_dropout: float
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.activation = activation
        self.dropout = dropout
        self.hidden_dropout = hidden_dropout

    def forward(self, x: Tensor) -> Tensor:
        x = ACTIVATIONS[self.activation](self.fc1(x))
        x = self.fc2(functional.dropout(x, self.hidden_dropout, self.training))
        return functional.dropout(x, self.dropout, self.training)


class MLPHead(nn.Module):
    """``layers`` linear layers with ReLU between them; takes boxes to positions, or queries to boxes."""

    def __init__(self, in_width: int, hidden: int, out_width: int, layers: int) -> None:
        super().__init__()
        widths = [in_width, *[hidden] * (layers - 1), out_width]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = functional.relu(layer(x))
        last: Tensor = self.layers[-1](x)
        return last
