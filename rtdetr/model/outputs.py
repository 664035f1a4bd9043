# SPDX-License-Identifier: Apache-2.0
"""What a forward pass returns, and what it records on its way if asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, TypeVar

from torch import Tensor
from torch.utils import _pytree as pytree

from ..errors import did_you_mean

__all__ = ["RTDetrV2ModelOutput", "RTDetrV2ObjectDetectionOutput", "Recorder"]

T = TypeVar("T", bound="type[Output]")


class Output(dict[str, Any]):
    """A dict of what is not None, whose entries are attributes and, in order, those of a tuple too.

    As transformers' outputs are: trainers, ``DataParallel`` and hooks take a dict apart and build it anew from pairs.
    """

    entries: ClassVar[tuple[str, ...]]
    """Names in the order of a tuple."""

    def __init__(
        self, pairs: Mapping[str, Any] | Iterable[tuple[str, Any]] = (), /, **values: Any
    ) -> None:
        values = {**dict(pairs), **values}
        for name in values:
            if name not in self.entries:
                hint = did_you_mean(name, self.entries)
                raise TypeError(f"{type(self).__name__} has no entry {name!r}.{hint}")
        super().__init__()
        for name in self.entries:
            value = values.get(name)
            if value is not None:
                self[name] = value

    # Entries are tensors, and the truth of a comparison of tensors is an error.
    __eq__ = object.__eq__
    __ne__ = object.__ne__
    __hash__ = object.__hash__  # type: ignore[assignment]

    def to_tuple(self) -> tuple[Any, ...]:
        return tuple(self.values())

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(key) if isinstance(key, str) else self.to_tuple()[key]


def is_tree(cls: T) -> T:
    """Make the fields of ``cls`` entries, and let compilers, exporters and hooks look into it: tensors are leaves."""
    cls.entries = tuple(field.name for field in fields(cls))  # type: ignore[arg-type]
    for name in cls.entries:
        setattr(cls, name, _entry(name))

    def flatten(output: Output) -> tuple[list[Any], list[str]]:
        return list(output.values()), list(output.keys())

    def flatten_with_keys(output: Output) -> tuple[list[tuple[Any, Any]], list[str]]:
        return [(pytree.GetAttrKey(name), value) for name, value in output.items()], list(output)

    pytree.register_pytree_node(
        cls,
        flatten,
        lambda values, names: cls(zip(names, values, strict=True)),
        serialized_type_name=f"rtdetr.{cls.__name__}",
        flatten_with_keys_fn=flatten_with_keys,
    )
    return cls


def _entry(name: str) -> property:
    def write(output: Output, value: Any) -> None:
        if value is None:
            output.pop(name, None)
        else:
            output[name] = value

    return property(lambda output: output.get(name), write)


@is_tree
@dataclass(init=False, repr=False, eq=False)
class RTDetrV2ModelOutput(Output):
    """Output of :class:`~rtdetr.model.RTDetrV2Model`. B batch, Q queries, N decoder layers run, K classes, S pixels.

    Args:
        last_hidden_state: [B, Q, C].
        intermediate_hidden_states: [B, N, Q, C].
        intermediate_logits: [B, N, Q, K], or an empty tuple where the decoder has no heads.
        intermediate_reference_points: [B, N, Q, 4], (cx, cy, w, h) in 0..1, float32.
        intermediate_predicted_corners: None; D-FINE, which shares this record in transformers, has it.
        initial_reference_points: None, as ``intermediate_predicted_corners``.
        decoder_hidden_states: N + 1 tensors [B, Q, C], if asked for.
        decoder_attentions: N tensors [B, heads, Q, Q], if asked for.
        cross_attentions: N tensors [B, Q, M, T], if asked for.
        encoder_last_hidden_state: the maps [B, C, H_l, W_l], finest first.
        encoder_hidden_states: the first map that attention goes over, and each after it, if asked for.
        encoder_attentions: [B, heads, H*W, H*W] for each layer, if asked for.
        init_reference_points: [B, Q, 4], logits of the boxes that the decoder starts from.
        enc_topk_logits: [B, Q, K] scores of the selected pixels.
        enc_topk_bboxes: [B, Q, 4] boxes of the selected pixels.
        enc_outputs_class: [B, S, K] scores of all pixels.
        enc_outputs_coord_logits: [B, S, 4] logits of the boxes of all pixels.
        denoising_meta_values: in training with labels, what the first queries are: ``dn_positive_idx`` of each image,
            ``dn_num_group``, ``dn_num_split`` (how many there are, and Q) and ``dn_matches``.
    """

    last_hidden_state: Tensor | None = None
    intermediate_hidden_states: Tensor | None = None
    intermediate_logits: Tensor | tuple[()] | None = None
    intermediate_reference_points: Tensor | None = None
    intermediate_predicted_corners: Tensor | None = None
    initial_reference_points: Tensor | None = None
    decoder_hidden_states: tuple[Tensor, ...] | None = None
    decoder_attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None
    encoder_last_hidden_state: list[Tensor] | None = None
    encoder_hidden_states: tuple[Tensor, ...] | None = None
    encoder_attentions: tuple[Tensor, ...] | None = None
    init_reference_points: Tensor | None = None
    enc_topk_logits: Tensor | None = None
    enc_topk_bboxes: Tensor | None = None
    enc_outputs_class: Tensor | None = None
    enc_outputs_coord_logits: Tensor | None = None
    denoising_meta_values: dict[str, Any] | None = None


@dataclass(init=False, repr=False, eq=False)
class _DetectionFields:
    loss: Tensor | None = None
    loss_dict: dict[str, Tensor] | None = None
    logits: Tensor | None = None
    pred_boxes: Tensor | None = None
    auxiliary_outputs: list[dict[str, Tensor]] | None = None


@is_tree
@dataclass(init=False, repr=False, eq=False)
class RTDetrV2ObjectDetectionOutput(RTDetrV2ModelOutput, _DetectionFields):
    """Output of :class:`~rtdetr.model.RTDetrV2ForObjectDetection`: the detections, then all of the model's outputs.

    Args:
        loss: with labels, the sum of ``loss_dict``.
        loss_dict: with labels, scalars by name; see :func:`rtdetr.loss.compute_losses`.
        logits: [B, Q, K], before the sigmoid; the dtype of the model. Denoising queries stand before the others.
        pred_boxes: [B, Q, 4], (cx, cy, w, h) in 0..1 over the input, float32.
        auxiliary_outputs: with labels, ``logits`` and ``pred_boxes`` of each decoder layer but the last, then the
            encoder's.
    """

    # A dataclass takes the fields of its last base first: position 0 is the loss, or the logits without one.


class Recorder:
    """Records what layers produce, if asked to; passed through the layers of one call."""

    def __init__(self, *, attentions: bool, states: bool) -> None:
        self.attentions = attentions
        self.states = states
        self.weights: list[Tensor] = []
        self.cross_weights: list[Tensor] = []
        self.hidden: list[Tensor] = []

    def attention(self, weights: Tensor | None) -> None:
        if weights is not None:
            self.weights.append(weights)

    def cross_attention(self, weights: Tensor) -> None:
        self.cross_weights.append(weights)

    def state(self, state: Tensor) -> None:
        if self.states:
            self.hidden.append(state)

    def recorded(self, kind: str) -> tuple[Tensor, ...] | None:
        """What was recorded of "weights", "cross_weights" or "hidden"; None where nothing was to be recorded."""
        asked = self.states if kind == "hidden" else self.attentions
        return tuple(getattr(self, kind)) if asked else None
