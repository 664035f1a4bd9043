# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from torch import nn

from rtdetr.model.layers import ConvNorm, FrozenBatchNorm2d
from rtdetr.model.stages import ConvLayer, StagedNetwork


@pytest.mark.parametrize(
    ("layer", "names"),
    [(ConvNorm, ["conv", "norm"]), (ConvLayer, ["convolution", "normalization"])],
)
def test_layer_names_its_parts_and_runs_them_in_order(
    layer: type[ConvNorm], names: list[str]
) -> None:
    made = layer(4, 6, 3, 2, groups=2, frozen=True, activation="relu")
    conv, norm = (getattr(made, name) for name in names)
    assert [name for name, _ in made.named_children()] == names
    assert isinstance(norm, FrozenBatchNorm2d)
    norm.bias.uniform_(-1, 1, generator=torch.Generator().manual_seed(0))
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    assert made(x).shape == (2, 6, 4, 4)
    assert torch.equal(made(x), norm(conv(x)).relu())


def test_network_returns_the_maps_of_its_out_indices() -> None:
    pools = [nn.AvgPool2d(2) for _ in range(3)]
    network = StagedNetwork(nn.Flatten(2), (nn.Unflatten(2, (16, 16)), *pools), (1, 3))
    image = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    first, third = network(image)
    assert torch.equal(first, image)
    assert torch.equal(third, pools[1](pools[0](image)))
