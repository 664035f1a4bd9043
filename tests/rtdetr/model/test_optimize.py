# SPDX-License-Identifier: Apache-2.0
"""An optimized detector finds what the original finds, and nothing of the original is touched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_detector import tiny_config
from torch import nn

from rtdetr.config import HGNetV2Config, ResNetConfig, RTDetrV2Config
from rtdetr.errors import UsageError
from rtdetr.model import RTDetrV2ForObjectDetection, RTDetrV2Model
from rtdetr.model import optimize as optimization
from rtdetr.model.hybrid_encoder import RepVggBlock
from rtdetr.model.layers import FrozenBatchNorm2d
from rtdetr.weights import save_original

NORMS = (nn.BatchNorm2d, FrozenBatchNorm2d)


def bottleneck() -> RTDetrV2Config:
    backbone = ResNetConfig(depths=(1, 2, 1, 1), hidden_sizes=(32, 32, 32, 64), embedding_size=8)
    return replace(
        tiny_config(),
        backbone_config=backbone,
        encoder_in_channels=backbone.channels,
        freeze_backbone_batch_norms=True,
        hidden_expansion=0.5,
    )


def hgnet() -> RTDetrV2Config:
    backbone = HGNetV2Config(
        stem_channels=(3, 8, 8),
        stage_in_channels=(8, 16, 16, 32),
        stage_mid_channels=(8, 8, 8, 8),
        stage_out_channels=(16, 16, 32, 32),
        stage_num_blocks=(1, 1, 2, 1),
    )
    return replace(tiny_config(), backbone_config=backbone, encoder_in_channels=backbone.channels)


CONFIGS: dict[str, Callable[[], RTDetrV2Config]] = {
    "basic": tiny_config,
    "bottleneck_frozen_norms": bottleneck,
    "hgnet": hgnet,
    "discrete": lambda: replace(tiny_config(), decoder_method="discrete"),
    "ragged_points": lambda: replace(tiny_config(), decoder_n_points=(2, 6, 3)),
}


def awake(config: RTDetrV2Config, seed: int = 0) -> RTDetrV2ForObjectDetection:
    """No norm is the identity, no head and no offset is constant."""
    torch.manual_seed(seed)
    model = RTDetrV2ForObjectDetection(config).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, NORMS):
                module.running_mean.normal_(0.0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0.0, 0.1)
            elif isinstance(module, nn.Linear) and not module.weight.any():
                module.weight.normal_(0.0, 0.1)
    return model


def example(height: int = 96, width: int = 64) -> torch.Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(1))


def rows(model: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """Scores and box of each query [B, Q, K + 4]."""
    with torch.inference_mode():
        found = model(pixels)
    numbers = torch.cat([found.logits.float().sigmoid(), found.pred_boxes.float()], -1)
    assert numbers.isfinite().all()  # torch.cdist passes over NaN
    return numbers


def farthest(expected: torch.Tensor, got: torch.Tensor) -> float:
    """Distance of the loneliest query from its nearest one: nearly equal scores may change places."""
    return torch.cdist(expected, got, p=float("inf")).amin(-1).max().item()


@pytest.mark.parametrize("name", CONFIGS)
def test_finds_the_same(name: str) -> None:
    model = awake(CONFIGS[name]())
    assert farthest(rows(model, example()), rows(model.optimize(), example())) < 1e-4


@pytest.mark.parametrize("name", CONFIGS)
def test_norms_blocks_and_separate_projections_are_gone(name: str) -> None:
    fast = awake(CONFIGS[name]()).optimize(check=False)
    left = [m for m in fast.modules() if isinstance(m, (*NORMS, RepVggBlock))]
    assert left == []
    assert not any("sampling_offsets" in key for key in fast.state_dict())
    assert not any(parameter.requires_grad for parameter in fast.parameters())


def test_the_original_stays_as_it_was() -> None:
    model = awake(tiny_config()).train()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    fast = model.optimize(dtype=torch.bfloat16)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(after[key], tensor) for key, tensor in before.items())
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    shared = {p.data_ptr() for p in model.parameters()} & {p.data_ptr() for p in fast.parameters()}
    assert shared == set()


def test_the_copy_says_that_it_is_not_saved(tmp_path: Path) -> None:
    fast = RTDetrV2ForObjectDetection(tiny_config()).optimize()
    for save in (fast.save_pretrained, lambda path: save_original(fast, path / "a.pth")):
        with pytest.raises(UsageError, match=r"What optimize\(\) returns is not meant to be saved"):
            save(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_bfloat16_finds_nearly_the_same() -> None:
    model = awake(tiny_config())
    fast = model.optimize(dtype=torch.bfloat16)
    assert fast.dtype == torch.bfloat16
    expected, got = rows(model, example()), rows(fast, example())
    nearest = torch.cdist(expected, got, p=float("inf")).amin(-1)
    assert nearest.median() < 0.03


def test_convolutions_want_channels_last() -> None:
    fast = awake(tiny_config()).optimize()
    wide = [m for m in fast.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert wide
    assert all(m.weight.is_contiguous(memory_format=torch.channels_last) for m in wide)


@pytest.mark.parametrize("fault", ["_fold_norms", "_merge_blocks", "_merge_projections"])
def test_a_wrong_rewrite_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = getattr(optimization, fault)
    touched = {
        "_fold_norms": "convolution",
        "_merge_blocks": "bottlenecks",
        "_merge_projections": "projections",
    }

    def wrong(model: nn.Module) -> None:
        right(model)
        for name, parameter in model.named_parameters():
            if touched[fault] in name and name.endswith("bias"):
                parameter.data = parameter.data.roll(1, 0) + 0.1 * torch.arange(len(parameter))

    monkeypatch.setattr(optimization, fault, wrong)
    with pytest.raises(RuntimeError, match=r"optimize: .* differs by"):
        awake(tiny_config()).optimize()


def test_compiles_without_a_break() -> None:
    fast = awake(tiny_config()).optimize()
    compiled = torch.compile(fast, fullgraph=True, backend="aot_eager")
    assert farthest(rows(fast, example()), rows(compiled, example())) < 1e-5


def test_each_module_of_the_original_keeps_its_mode() -> None:
    model = awake(tiny_config()).train()
    model.model.backbone.eval()
    before = [module.training for module in model.modules()]
    assert not model.optimize().training
    assert [module.training for module in model.modules()] == before


def test_a_subclass_of_the_network_keeps_what_it_overrides() -> None:
    class Halved(RTDetrV2Model):
        def embed(self, pixel_values: torch.Tensor | None) -> list[torch.Tensor]:
            assert pixel_values is not None
            return super().embed(pixel_values / 2)

    model = awake(tiny_config())
    model.model.__class__ = Halved
    assert farthest(rows(model, example()), rows(model.optimize(), example())) < 1e-4
