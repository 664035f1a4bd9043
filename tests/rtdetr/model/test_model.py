# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
import dataclasses
import importlib
import io
import math
import pickle
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from model_cases import image, numbers, partner_distance, tiny_config, tiny_model
from torch import Tensor, nn
from torch.nn.parallel import scatter_gather
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from rtdetr.config import RTDetrV2Config
from rtdetr.model import RTDetrV2ForObjectDetection, RTDetrV2Model
from rtdetr.model.layers import FrozenBatchNorm2d, inverse_sigmoid
from rtdetr.model.outputs import RTDetrV2ModelOutput, RTDetrV2ObjectDetectionOutput
from rtdetr.model.positions import position_embedding
from rtdetr.model.query_selection import Proposals, make_anchors, select
from rtdetr.model.size_cache import LIMIT, SizeCache
from rtdetr.weights.names import from_module_names

CPU = torch.device("cpu")

# Counted on the original's modules: parameters, those that are trained, entries of the state dict.
SIZES = {
    "rtdetrv2_r18vd": (20_184_464, 20_184_464, 536),
    "rtdetrv2_r34vd": (31_441_668, 31_441_668, 663),
    "rtdetrv2_r50vd_m": (36_593_772, 36_565_260, 766),
    "rtdetrv2_r50vd": (42_891_372, 42_862_860, 742),
    "rtdetrv2_r101vd": (76_556_268, 76_527_756, 997),
}
PARTS = {  # backbone, encoder with its projections, the rest
    "rtdetrv2_r18vd": (11_199_968, 4_965_120, 4_019_376),
    "rtdetrv2_r50vd": (23_474_016, 11_950_848, 7_466_508),
}


def shapes_of(name: str) -> RTDetrV2ForObjectDetection:
    """The model of a preset, without memory for its weights."""
    with torch.device("meta"):
        return RTDetrV2ForObjectDetection(RTDetrV2Config.from_preset(name))


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_those_of_the_original(name: str) -> None:
    model = shapes_of(name)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    entries = len(from_module_names(model.state_dict(), "original"))
    assert (count(model), trained, entries) == SIZES[name]


@pytest.mark.parametrize("name", PARTS)
def test_parts_have_the_sizes_of_the_original(name: str) -> None:
    model = shapes_of(name)
    backbone = count(model.model.backbone)
    encoder = count(model.model.encoder) + count(model.model.encoder_input_proj)
    assert (backbone, encoder, count(model) - backbone - encoder) == PARTS[name]


@pytest.mark.parametrize(("variant", "millions"), [("l", 32.9), ("x", 67.4), ("h", 125.6)])
def test_hgnet_sizes_are_near_the_published_ones(variant: str, millions: float) -> None:
    assert count(shapes_of(f"rtdetrv2_hgnetv2_{variant}")) / 1e6 == pytest.approx(millions, abs=0.1)


# --- what goes in ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (torch.rand(1, 3, 100, 128), r"multiples of 32, got 100x128 \(HxW\)"),
        (torch.rand(1, 3, 128, 100), r"multiples of 32, got 128x100 \(HxW\)"),
        (torch.rand(1, 3, 0, 128), "multiples of 32, got 0x128"),
        (torch.rand(3, 128, 128), r"shape \[B, 3, H, W\], got \[3, 128, 128\]"),
        (torch.rand(1, 4, 128, 128), r"shape \[B, 3, H, W\], got \[1, 4, 128, 128\]"),
        (torch.zeros(1, 3, 128, 128, dtype=torch.uint8), r"0\.\.1, got torch\.uint8"),
        (None, r"a tensor \[B, 3, H, W\], got None"),
    ],
    ids=["height", "width", "empty", "no batch", "channels", "bytes", "nothing"],
)
def test_wrong_pixels_are_refused(pixels: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^pixel_values: expected .*{message}"):
        tiny_model()(pixels)


def test_pixel_mask_has_no_effect() -> None:
    model, pixels = tiny_model(), image(64, 96)
    mask = torch.zeros(1, 64, 96, dtype=torch.int64)
    with torch.inference_mode():
        assert torch.equal(model(pixels, mask).logits, model(pixels).logits)


def test_later_stages_can_start_from_given_maps() -> None:
    model, pixels = tiny_model(), image(64, 96)
    with torch.inference_mode():
        expected = model(pixels)
        projected = model.model.embed(pixels)
        from_maps = model(None, inputs_embeds=projected)
        maps = expected.encoder_last_hidden_state
        from_encoded = [model(None, encoder_outputs=given) for given in (maps, (maps,))]
    for found in (from_maps, *from_encoded):
        assert torch.equal(found.pred_boxes, expected.pred_boxes)


# --- what comes out -------------------------------------------------------------------------------


def test_output_reads_as_those_of_transformers() -> None:
    with torch.inference_mode():
        output = tiny_model()(image(96, 128, batch=2))
        as_tuple = tiny_model()(image(96, 128, batch=2), return_dict=False)
    assert output.logits.shape == (2, 30, 5)
    assert output.pred_boxes.shape == (2, 30, 4)
    assert output[0] is output.logits is output["logits"] is output.to_tuple()[0]
    assert output[:2] == (output.logits, output.pred_boxes)
    assert "loss" not in output
    assert "logits" in output
    assert list(output) == list(output.keys())
    assert dict(output.items()).keys() == {**output}.keys()
    assert len(as_tuple) == len(output)
    assert torch.equal(as_tuple[1], output.pred_boxes)
    with pytest.raises(KeyError, match="loss"):
        output["loss"]
    assert output != tiny_model()(image(96, 128, batch=2))


def test_detections_come_before_the_outputs_of_the_model() -> None:
    # Position matters to whoever reads an output as a tuple; the order is the one of transformers.
    model_fields = [
        *("last_hidden_state", "intermediate_hidden_states", "intermediate_logits"),
        *("intermediate_reference_points", "intermediate_predicted_corners"),
        *("initial_reference_points", "decoder_hidden_states", "decoder_attentions"),
        *("cross_attentions", "encoder_last_hidden_state", "encoder_hidden_states"),
        *("encoder_attentions", "init_reference_points", "enc_topk_logits", "enc_topk_bboxes"),
        *("enc_outputs_class", "enc_outputs_coord_logits", "denoising_meta_values"),
    ]
    detections = ["loss", "loss_dict", "logits", "pred_boxes", "auxiliary_outputs"]
    for output, names in (
        (RTDetrV2ModelOutput, model_fields),
        (RTDetrV2ObjectDetectionOutput, detections + model_fields),
    ):
        assert [field.name for field in dataclasses.fields(output)] == names
        values = {name: index for index, name in enumerate(names)}
        assert output(**values).to_tuple() == tuple(range(len(names)))


def test_output_is_a_dict() -> None:
    pixels = image(96, 128, batch=2)
    with torch.inference_mode():
        output = tiny_model()(pixels)
    assert isinstance(output, dict)
    pairs = [(name, output[name]) for name in output]
    for again in (
        type(output)(pairs),
        type(output)(dict(pairs)),
        type(output)(**output),
        pickle.loads(pickle.dumps(output)),
        copy.copy(output),
    ):
        assert type(again) is type(output)
        assert list(again) == list(output)
        assert torch.equal(again.logits, output.logits)
        assert again != output
    assert output == output
    output.loss = torch.ones(())
    assert output["loss"] == 1
    assert output.pop("loss") == 1
    assert output.loss is None
    output.logits = None
    assert "logits" not in output
    with pytest.raises(TypeError, match=r"no entry 'logit'\. Did you mean .logits."):
        type(output)(logit=1)


@pytest.mark.parametrize("build", [RTDetrV2Model, RTDetrV2ForObjectDetection])
def test_outputs_are_gathered_by_data_parallel(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Concatenate:
        @staticmethod
        def apply(_: Any, __: Any, *tensors: Tensor) -> Tensor:
            return torch.cat(tensors)

    monkeypatch.setattr(scatter_gather, "Gather", Concatenate)
    model, pixels = build(tiny_config()).eval(), image(64, 96, batch=2)
    with torch.inference_mode():
        options = {"output_attentions": True, "output_hidden_states": True}
        gathered = scatter_gather.gather([model(x[None], **options) for x in pixels], "cpu")
        expected = model(pixels, **options)
    assert type(gathered) is type(expected)
    assert list(gathered) == list(expected)
    for found, exact in zip(
        pytree.tree_leaves(gathered), pytree.tree_leaves(expected), strict=True
    ):
        assert found.shape == exact.shape


@pytest.mark.parametrize("build", [RTDetrV2Model, RTDetrV2ForObjectDetection])
def test_replicas_of_data_parallel_run(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their weights are tensors that are no parameters; here they are not copied between devices."""
    replicate = importlib.import_module("torch.nn.parallel.replicate")
    monkeypatch.setattr(
        replicate,
        "_broadcast_coalesced_reshape",
        lambda tensors, devices, detach=False: [[x.detach() for x in tensors] for _ in devices],
    )
    model = build(tiny_config()).eval()
    replicas = replicate.replicate(model, [0, 1])
    with torch.inference_mode():
        expected = model(image(64, 96))
        for replica in replicas:
            assert not list(replica.parameters())
            assert replica.device == model.device
            assert torch.equal(replica(image(64, 96)).last_hidden_state, expected.last_hidden_state)


def test_configuration_decides_what_a_call_does_not() -> None:
    pixels = image(64, 96)
    for build in (RTDetrV2Model, RTDetrV2ForObjectDetection):
        model = build(tiny_config(output_attentions=True)).eval()
        with torch.inference_mode():
            assert model(pixels).decoder_attentions is not None
            assert model(pixels).decoder_hidden_states is None
            assert model(pixels, output_attentions=False).decoder_attentions is None
            model.config.output_hidden_states = True
            assert model(pixels).decoder_hidden_states is not None
            model.config.return_dict = False
            assert isinstance(model(pixels), tuple)
            assert isinstance(model(pixels, return_dict=True), dict)


def test_output_is_a_tree() -> None:
    output = RTDetrV2ObjectDetectionOutput(logits=torch.ones(2), pred_boxes=torch.zeros(3))
    doubled = pytree.tree_map(lambda tensor: tensor + 1, output)
    assert type(doubled) is RTDetrV2ObjectDetectionOutput
    assert doubled.logits.tolist() == [2, 2]
    assert doubled.loss is None


def test_boxes_lie_in_the_image_and_refine_the_proposals() -> None:
    with torch.inference_mode():
        output = tiny_model()(image(96, 128))
    assert output.pred_boxes.min() >= 0
    assert output.pred_boxes.max() <= 1
    assert output.intermediate_reference_points.shape == (1, 3, 30, 4)
    assert torch.equal(output.init_reference_points.sigmoid(), output.enc_topk_bboxes)
    assert (output.pred_boxes - output.enc_topk_bboxes).abs().max() > 0.01


def test_batch_gives_what_single_images_give() -> None:
    model, pixels = tiny_model(), image(96, 128, batch=3)
    with torch.inference_mode():
        together = model(pixels)
        for index in range(3):
            alone = model(pixels[index : index + 1])
            distance = partner_distance(numbers(together, index), numbers(alone))
            assert distance.max() < 1e-5


def test_empty_batch_gives_empty_results() -> None:
    with torch.inference_mode():
        output = tiny_model()(torch.rand(0, 3, 64, 96))
    assert output.logits.shape == (0, 30, 5)
    assert output.pred_boxes.shape == (0, 30, 4)


def test_small_image_has_as_many_queries_as_pixels() -> None:
    with torch.inference_mode():
        output = tiny_model()(image(32, 32))
    assert output.logits.shape == (1, 16 + 4 + 1, 5)


def test_attentions_are_returned_if_asked_for() -> None:
    model, pixels = tiny_model(), image(64, 96)
    with torch.inference_mode():
        plain = model(pixels)
        output = model(pixels, output_attentions=True, output_hidden_states=True)
    assert plain.cross_attentions is None
    assert torch.equal(plain.logits, output.logits)
    for weights in (*output.encoder_attentions, *output.decoder_attentions):
        torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))
    assert [tuple(w.shape) for w in output.cross_attentions] == [(1, 30, 8, 12)] * 3
    for weights in output.cross_attentions:  # one softmax over the points of all levels
        torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))
    assert len(output.decoder_hidden_states) == 4
    assert torch.equal(output.decoder_hidden_states[-1], output.last_hidden_state)


# --- precision, compilers, devices ----------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_16_bits_give_boxes_in_32(dtype: torch.dtype) -> None:
    model, pixels = tiny_model(), image(64, 96)
    with torch.inference_mode():
        expected = model(pixels)
        output = model.to(dtype)(pixels)
    assert output.logits.dtype == dtype
    assert output.pred_boxes.dtype == torch.float32
    maps = zip(output.encoder_last_hidden_state, expected.encoder_last_hidden_state, strict=True)
    for found, exact in maps:  # behind them, a rounding may choose other pixels
        assert (found.float() - exact).abs().max() < 0.1 * exact.abs().max()
    assert output.logits.isfinite().all()


def test_autocast_runs() -> None:
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        output = tiny_model()(image(64, 96))
    assert output.pred_boxes.dtype == torch.float32
    assert output.logits.isfinite().all()


@pytest.mark.parametrize(
    ("backend", "sizes"),
    [
        ("eager", [(64, 96)]),
        ("aot_eager", [(64, 96), (96, 64)]),
    ],
)
def test_detector_compiles_as_one_graph(backend: str, sizes: list[tuple[int, int]]) -> None:
    model = tiny_model(decoder_layers=2)
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    for size in sizes:
        with torch.inference_mode():
            found, expected = compiled(image(*size)), model(image(*size))
        assert partner_distance(numbers(found), numbers(expected)).max() < 1e-5
    torch.compiler.reset()


def test_detector_compiles_as_one_graph_under_a_default_device() -> None:
    torch.compiler.reset()
    model, pixels = tiny_model(decoder_layers=1), image(64, 96)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    with torch.inference_mode():
        with torch.device("cpu"):
            found = compiled(pixels)
        assert partner_distance(numbers(found), numbers(model(pixels))).max() < 1e-5


def test_detector_exports() -> None:
    model, pixels = tiny_model(), image(64, 96)
    program = torch.export.export(model, (pixels,))
    with torch.inference_mode():
        found, expected = program.module()(image(64, 96, seed=1)), model(image(64, 96, seed=1))
    assert partner_distance(numbers(found), numbers(expected)).max() < 1e-5


class NoReading(TorchDispatchMode):
    """Refuses what would wait for the device: to take a number out of a tensor, or to let numbers decide a shape."""

    WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "equal")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert not any(func.__name__.startswith(name) for name in self.WAITING), func
        return func(*args, **(kwargs or {}))


def test_nothing_waits_for_the_device() -> None:
    for mode in ("default", "discrete"):
        model, pixels = tiny_model(decoder_method=mode), image(64, 96)
        with torch.inference_mode(), NoReading():
            output = model(pixels)
        assert output.logits.shape == (1, 30, 5)


def test_model_is_copied_and_pickled_after_use() -> None:
    model, pixels = tiny_model(), image(64, 96)
    with torch.inference_mode():
        expected = model(pixels).logits
        file = io.BytesIO()
        torch.save(model, file)
        file.seek(0)
        for again in (copy.deepcopy(model), torch.load(file, weights_only=False)):
            assert torch.equal(again(pixels).logits, expected)


# --- tables for a size ----------------------------------------------------------------------------


def test_tables_are_made_once_per_size_and_few_are_kept() -> None:
    made: list[int] = []

    def make(size: int, device: torch.device) -> tuple[Tensor]:
        made.append(size)
        return (torch.full((size,), float(size), device=device),)

    table = SizeCache(make)
    assert table(3, device=CPU)[0] is table(3, device=CPU)[0]
    for size in range(4, 4 + LIMIT):
        table(size, device=CPU)
    assert len(table.known) == LIMIT
    table(3, device=CPU)
    assert made.count(3) == 2


def test_tables_serve_many_threads() -> None:
    table = SizeCache(lambda size, device: (torch.full((1,), float(size), device=device),))
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def ask(first: int) -> None:
        for step in range(1500):
            size = (first + step) % (2 * LIMIT)
            assert table(size, device=CPU)[0].item() == size

    try:
        with ThreadPoolExecutor(8) as pool:
            for done in [pool.submit(ask, 7 * index) for index in range(8)]:
                done.result()
    finally:
        sys.setswitchinterval(interval)
    assert len(table.known) == LIMIT


def test_training_may_follow_inference() -> None:
    model, pixels = tiny_model(), image(64, 96)
    with torch.inference_mode():
        model(pixels)
    model.train()(pixels).pred_boxes.sum().backward()
    assert model.model.enc_output[0].weight.grad is None  # queries are detached
    assert model.bbox_embed[2].layers[2].weight.grad.abs().sum() > 0


def test_anchors() -> None:
    levels = ((80, 80), (40, 40), (20, 20))
    logits, used = make_anchors(levels, CPU)
    assert logits.shape == (1, 8400, 4)
    assert (~used).sum() == 316  # the outer ring of the finest map
    assert logits.isfinite().all()
    assert (logits[~used[..., 0]].sigmoid() == 1).all()
    row, column = 3, 5
    box = logits[0, 6400 + row * 40 + column].sigmoid()
    torch.testing.assert_close(box, torch.tensor([5.5 / 40, 3.5 / 40, 0.1, 0.1]))


@pytest.mark.parametrize("legacy", [False, True], ids=["rows and columns", "as the original"])
def test_position_embedding(legacy: bool) -> None:
    height, width = 3, 5
    (found,) = position_embedding(height, width, 8, 10000, legacy, CPU)
    assert found.shape == (1, 15, 8)
    for pixel in range(15):
        row, column = divmod(pixel, height if legacy else width)
        frequencies = [1.0, 10000**-0.5]
        expected = [
            function(place * frequency)
            for place in (row, column)
            for function in (math.sin, math.cos)
            for frequency in frequencies
        ]
        torch.testing.assert_close(found[0, pixel], torch.tensor(expected))


def test_legacy_position_embedding_changes_rectangles_alone() -> None:
    plain, legacy = tiny_model(), tiny_model(legacy_position_embedding=True)
    with torch.inference_mode():
        for size, is_equal in (((96, 96), True), ((96, 160), False)):
            maps = [m(image(*size)).encoder_last_hidden_state[2] for m in (plain, legacy)]
            assert torch.equal(*maps) == is_equal


# --- selection and decoder ------------------------------------------------------------------------


def test_selection_methods() -> None:
    scores = torch.tensor([[[0.1, 0.9], [0.8, 0.7], [0.3, 0.2], [0.0, 0.1]]])  # [1, 4 pixels, 2]
    content = torch.arange(4.0).reshape(1, 4, 1)
    proposals = Proposals(content, scores, content.expand(1, 4, 4))

    def chosen(method: str) -> list[float]:
        selection = select(proposals, 3, method)
        assert torch.equal(selection.boxes[..., :1], selection.content)
        return selection.content.flatten().tolist()

    assert chosen("default") == [0, 1, 2]
    assert chosen("one2many") == [0, 1, 1]
    agnostic = Proposals(content, scores[..., 1:] - scores[..., :1], proposals.boxes)
    assert select(agnostic, 2, "agnostic").content.flatten().tolist() == [0, 3]


@pytest.mark.parametrize("method", ["one2many", "agnostic"])
def test_selection_methods_run_in_the_detector(method: str) -> None:
    model = tiny_model(query_select_method=method)
    assert model.model.enc_score_head.out_features == (1 if method == "agnostic" else 5)
    with torch.inference_mode():
        assert model(image(64, 96)).logits.shape == (1, 30, 5)


def test_evaluation_stops_at_its_layer_and_training_does_not() -> None:
    whole, early = tiny_model(), tiny_model(eval_idx=1)
    pixels = image(64, 96)
    with torch.inference_mode():
        expected, found = whole(pixels), early(pixels)
        trained = early.train()(pixels)
    assert torch.equal(found.logits, expected.intermediate_logits[:, 1])
    assert torch.equal(found.pred_boxes, expected.intermediate_reference_points[:, 1])
    assert found.intermediate_logits.shape[1] == 2
    assert trained.intermediate_logits.shape[1] == 3


def test_training_looks_forward_twice() -> None:
    model = tiny_model().train()
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.eval()
    boxes = model(image(64, 96)).intermediate_reference_points
    boxes[:, 1].sum().backward()
    gradients = [head.layers[2].weight.grad for head in model.bbox_embed]
    assert gradients[0].abs().sum() > 0
    assert gradients[1].abs().sum() > 0
    assert not gradients[2].any()
    model.zero_grad()
    model(image(64, 96)).intermediate_reference_points[:, 2].sum().backward()
    assert not model.bbox_embed[0].layers[2].weight.grad.any()  # one layer back, not two
    assert model.bbox_embed[1].layers[2].weight.grad.any()
    torch.testing.assert_close(boxes[:, -1], model.eval()(image(64, 96)).pred_boxes)


def test_learned_queries_do_not_depend_on_the_image() -> None:
    model = tiny_model(learn_initial_query=True)
    with torch.inference_mode():
        first, second = (
            model(image(64, 96, seed=seed), output_hidden_states=True).decoder_hidden_states[0]
            for seed in (1, 2)
        )
    assert torch.equal(first, second)
    assert torch.equal(first[0], model.model.weight_embedding.weight)


def test_extra_levels_halve_the_one_before() -> None:
    changes = {"num_feature_levels": 5, "decoder_n_levels": 5, "decoder_n_points": (4, 0, 2, 1, 3)}
    model = tiny_model(**changes)
    maps = [torch.rand(1, 32, 8 // 2**n, 12 // 2**n) for n in range(3)]
    memory, levels = model.model.flatten(maps)
    assert levels == ((8, 12), (4, 6), (2, 3), (1, 2), (1, 1))
    assert memory.shape == (1, 96 + 24 + 6 + 2 + 1, 64)
    with torch.inference_mode():
        assert model(image(64, 96)).logits.shape == (1, 30, 5)


def test_model_without_heads_leaves_boxes_where_they_are() -> None:
    model = RTDetrV2Model(tiny_config()).eval()
    with torch.inference_mode():
        output = model(image(64, 96))
    assert output.intermediate_logits == ()
    expected = output.enc_topk_bboxes[:, None].expand(-1, 3, -1, -1)
    assert torch.equal(output.intermediate_reference_points, expected)


def test_inverse_sigmoid() -> None:
    x = torch.tensor([-1.0, 0.0, 0.25, 1.0, 2.0])
    limit = math.log(1 / 1e-5)
    expected = torch.tensor([-limit, -limit, math.log(1 / 3), limit, limit])
    torch.testing.assert_close(inverse_sigmoid(x), expected)


# --- what is trained ------------------------------------------------------------------------------


def test_discrete_sampling_freezes_offsets() -> None:
    frozen = [
        n
        for n, p in tiny_model(decoder_method="discrete").named_parameters()
        if not p.requires_grad
    ]
    assert len(frozen) == 6
    assert all(".sampling_offsets." in name for name in frozen)
    assert all(parameter.requires_grad for parameter in tiny_model().parameters())


@pytest.mark.parametrize("freeze_at", [-1, 0, 2])
def test_stem_and_first_stages_are_frozen(freeze_at: int) -> None:
    model = tiny_model(freeze_at=freeze_at)
    network = model.model.backbone.model

    def trains(module: nn.Module) -> bool:
        return all(parameter.requires_grad for parameter in module.parameters())

    expected = [freeze_at < 0, *(index >= freeze_at for index in range(4))]
    for change in (lambda: None, model.freeze_backbone, model.unfreeze_backbone):
        change()
        found = [trains(network.embedder), *map(trains, network.encoder.stages)]
        assert found == ([False] * 5 if change == model.freeze_backbone else expected)
    assert trains(model.model.encoder)


def test_frozen_normalization_stays_and_equals_the_trained_one() -> None:
    trained, frozen = nn.BatchNorm2d(4).eval(), FrozenBatchNorm2d(4)
    for name in ("weight", "bias", "running_mean"):
        nn.init.normal_(getattr(trained, name))
    trained.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    frozen.load_state_dict(trained.state_dict())  # num_batches_tracked is dropped
    x = torch.randn(2, 4, 3, 3)
    torch.testing.assert_close(frozen.train()(x), trained(x))
    assert not list(frozen.parameters())
    assert len(list(frozen.buffers())) == 4


# --- initial weights ------------------------------------------------------------------------------


def test_initial_weights_are_drawn_as_by_the_original() -> None:
    model = RTDetrV2ForObjectDetection(tiny_config())
    inner = model.model
    prior = -math.log(99)
    for head in (inner.enc_score_head, *model.class_embed):
        torch.testing.assert_close(head.bias, torch.full_like(head.bias, prior))
    for box_head in (inner.enc_bbox_head, *model.bbox_embed):
        assert not any(parameter.any() for parameter in box_head.layers[-1].parameters())
    assert not inner.denoising_class_embed.weight[-1].any()
    assert inner.denoising_class_embed.weight[:-1].std().item() == pytest.approx(1, abs=0.3)
    xavier: list[Callable[[], Tensor]] = [
        lambda: inner.enc_output[0].weight,
        lambda: inner.decoder.query_pos_head.layers[1].weight,
        lambda: inner.decoder.layers[0].mlp.fc1.weight,
        lambda: inner.decoder.layers[0].encoder_attn.value_proj.weight,
        lambda: inner.decoder_input_proj[0][0].weight[..., 0, 0],
    ]
    for weight in (get() for get in xavier):
        bound = math.sqrt(6 / sum(weight.shape))
        assert 0.9 * bound < weight.abs().max() <= bound
    packed = inner.decoder.layers[0].self_attn.q_proj.weight
    assert 0.9 < packed.abs().max() / math.sqrt(6 / (4 * 64)) <= 1


def test_initial_prior_can_be_set() -> None:
    model = RTDetrV2ForObjectDetection(tiny_config(initializer_bias_prior_prob=0.25))
    torch.testing.assert_close(model.class_embed[0].bias, torch.full((5,), -math.log(3)))


def test_initial_offsets_are_a_star() -> None:
    attention = tiny_model(decoder_n_points=(1, 2, 3)).model.decoder.layers[0].encoder_attn
    attention.reset_parameters()
    star = attention.sampling_offsets.bias.reshape(8, 6, 2)  # heads, points, (x, y)
    directions = [(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)]
    for head, direction in enumerate(directions):
        for point, step in enumerate((1, 1, 2, 1, 2, 3)):
            expected = torch.tensor(direction) * float(step)
            torch.testing.assert_close(star[head, point], expected, atol=1e-5, rtol=0)
    assert not attention.sampling_offsets.weight.any()
    assert not attention.attention_weights.weight.any()
    torch.testing.assert_close(
        attention.n_points_scale, torch.tensor([1, 1 / 2, 1 / 2, 1 / 3, 1 / 3, 1 / 3])
    )
