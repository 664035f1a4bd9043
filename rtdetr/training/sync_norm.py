# SPDX-License-Identifier: Apache-2.0
"""Batch normalization over the images of all processes.

``torch.nn.SyncBatchNorm`` runs on GPUs alone, and a rank that fails inside the network leaves the others waiting in
it. Here all messages have one size, so that a rank that ran out of memory can send the rest of its own empty, and all
meet at the end of the backward pass, where they agree to repeat the step.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from .distributed import World

__all__ = ["NormExchange", "SyncedBatchNorm", "synchronize_norms"]


class NormExchange:
    """The messages of all synchronized layers: two for each layer and part of a batch, one forward and one backward.

    Args:
        world: whose ranks exchange them.
        layers: synchronized ones; those that train are used once in each forward pass.
    """

    def __init__(self, world: World, layers: list[SyncedBatchNorm]) -> None:
        self.world = world
        self.layers = layers
        self.left = 0
        self.width = max((2 * layer.num_features + 1 for layer in layers), default=0)
        for layer in layers:
            layer.exchange = self

    def begin(self, parts: int) -> None:
        """A step of so many forward and backward passes."""
        self.left = 2 * parts * sum(layer.training for layer in self.layers)

    def __call__(self, numbers: Tensor) -> Tensor:
        """[R, n]: those [n] of each rank, zeros of one that is out of memory."""
        rows = self.world.exchange(functional.pad(numbers, (0, self.width - len(numbers))))
        self.left -= 1  # behind the message, which is still to be sent where memory ended before it
        return rows[:, : len(numbers)]

    def finish(self) -> None:
        """Send empty messages in place of those that this rank did not come to."""
        while self.left > 0:
            weight = self.layers[0].weight
            self(weight.new_zeros(1, dtype=_wide(weight.dtype)))


class SyncedBatchNorm(nn.BatchNorm2d):
    """In training normalizes by mean and variance over all ranks; parameters and buffers are those of a plain layer."""

    exchange: NormExchange

    @classmethod
    def of(cls, plain: nn.BatchNorm2d) -> SyncedBatchNorm:
        """A layer with the same parameters and buffers, not copies of them."""
        layer = cls(plain.num_features, plain.eps, plain.momentum, device="meta")
        layer._parameters = plain._parameters
        layer._buffers = plain._buffers
        return layer.train(plain.training)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        y: Tensor
        y, mean, var, count = _Normalize.apply(  # type: ignore[no-untyped-call]
            x, self.weight, self.bias, self.eps, self.exchange
        )
        self._follow(mean, var * (count / (count - 1)))
        return y

    @torch.no_grad()
    def _follow(self, mean: Tensor, var: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_(var.to(self.running_var.dtype), self.momentum)


class _Normalize(torch.autograd.Function):
    """Output, mean, variance and the number of values that they are of; one gradient of each message's own shape.

    Source: Batch normalization (Ioffe and Szegedy, 2015), sec. 3; Chan, Golub and LeVeque (1979) for joining variances.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, exchange: NormExchange
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        var, mean = torch.var_mean(x.to(_wide(x.dtype)), (0, 2, 3), correction=0)
        count = mean.new_full((1,), x.numel() / x.shape[1])
        counts, means, variances = torch.split(
            exchange(torch.cat([count, mean, var])), [1, *2 * [len(mean)]], 1
        )
        count = counts.sum()
        mean = (counts * means).sum(0) / count
        var = (counts * (variances + (means - mean) ** 2)).sum(0) / count
        ctx.save_for_backward(x, weight, mean, var, count)
        ctx.eps, ctx.exchange = eps, exchange
        ctx.mark_non_differentiable(mean, var, count)
        y = functional.batch_norm(x, mean, var, weight, bias, eps=eps)
        return y, mean, var, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *unused: Tensor) -> tuple[Tensor | None, ...]:
        """With x^ the normalized input: ``grad_x = weight / std * (grad - mean(grad) - x^ * mean(grad * x^))``."""
        x, weight, mean, var, count = ctx.saved_tensors
        direct, grad_weight, grad_bias = torch.ops.aten.native_batch_norm_backward(
            grad, x, weight, mean, var, None, None, False, ctx.eps, [True] * 3
        )
        sums = ctx.exchange(torch.cat([grad_weight, grad_bias])).sum(0) / count
        scaled_mean, grad_mean = sums.split(len(mean))
        inverse = (var + ctx.eps).rsqrt()
        slope = weight * inverse**2 * scaled_mean
        offset = weight * inverse * grad_mean - mean * slope
        indirect = torch.addcmul(_of_channels(offset), x, _of_channels(slope))
        return (direct - indirect).to(x.dtype), grad_weight, grad_bias, None, None


def synchronize_norms(model: nn.Module, world: World) -> NormExchange:
    """Let the batch normalizations that train take mean and variance over all ranks, in place.

    Those whose weight is frozen, or that are in evaluation mode, stay as they are. With one rank all do.
    """
    layers: list[SyncedBatchNorm] = []
    for parent in list(model.modules()) if world.size > 1 else []:
        for name, child in parent.named_children():
            if type(child) is nn.BatchNorm2d and child.training and child.weight.requires_grad:
                layer = SyncedBatchNorm.of(child)
                layers.append(layer)
                setattr(parent, name, layer)
    return NormExchange(world, layers)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _of_channels(values: Tensor) -> Tensor:
    return values[:, None, None]
