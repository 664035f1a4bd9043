# SPDX-License-Identifier: Apache-2.0
"""RT-DETRv2 as its figure shows it: backbone, hybrid encoder, query selection, decoder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..config import RTDetrV2Config
from ..loss import Labels, Objects
from .attention import Levels
from .backbone import Backbone
from .decoder import Decoded, Decoder
from .denoising import DenoisingQueries, make_denoising
from .hybrid_encoder import HybridEncoder
from .inputs import check_pixels, encoder_maps
from .layers import MLPHead, to_tokens
from .outputs import Recorder, RTDetrV2ModelOutput
from .pretrained import Pretrained
from .query_selection import Proposals, Selection, make_anchors, select
from .size_cache import SizeCache

__all__ = ["Intermediates", "RTDetrV2Model", "box_head", "score_head"]


class Intermediates(NamedTuple):
    """What the network computed on its way from the encoder's maps to the decoder's outputs."""

    proposals: Proposals
    selection: Selection
    start: Tensor  # [B, Q, 4], logits of the boxes that the decoder starts from
    decoded: Decoded


class RTDetrV2Model(Pretrained):
    """RT-DETRv2 up to the decoder's states; the detector adds the heads.

    Args:
        config: its shape; see :class:`~rtdetr.config.RTDetrV2Config`.

    Weights are drawn as the original draws them. Parameter names are those of transformers 5.

    Source: RT-DETR (Zhao et al., 2023), fig. 4; RT-DETRv2 (Lv et al., 2024).
    """

    def __init__(self, config: RTDetrV2Config) -> None:
        super().__init__(config)
        width, norm_eps = config.d_model, config.batch_norm_eps
        self.backbone = Backbone(config)
        self.encoder_input_proj = nn.ModuleList(
            projection(channels, config.encoder_hidden_dim, eps=1e-5)
            for channels in config.encoder_in_channels
        )
        self.encoder = HybridEncoder(config)
        if config.num_denoising > 0:
            classes = config.num_labels
            self.denoising_class_embed = nn.Embedding(classes + 1, width, padding_idx=classes)
        if config.learn_initial_query:
            self.weight_embedding = nn.Embedding(config.num_queries, width)
            nn.init.xavier_uniform_(self.weight_embedding.weight)
        self.enc_output = nn.Sequential(
            nn.Linear(width, width), nn.LayerNorm(width, config.layer_norm_eps)
        )
        nn.init.xavier_uniform_(self.enc_output[0].get_parameter("weight"))
        scores = 1 if config.query_select_method == "agnostic" else config.num_labels
        self.enc_score_head = score_head(config, scores)
        self.enc_bbox_head = box_head(width)
        self.decoder_input_proj = decoder_projections(config, norm_eps)
        self.decoder = Decoder(config)
        self.anchors = SizeCache(make_anchors)

    def forward(
        self,
        pixel_values: Tensor | None,
        pixel_mask: Tensor | None = None,
        encoder_outputs: Any = None,
        inputs_embeds: list[Tensor] | None = None,
        labels: Sequence[Labels] | Objects | None = None,
        *,
        generators: Sequence[torch.Generator] | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """Run the network.

        Args:
            pixel_values: [B, 3, H, W], any floating dtype, 0..1; H and W are multiples of 32.
            pixel_mask: accepted and without effect, as in the original: padding is seen by the network.
            encoder_outputs: maps of the encoder, or a sequence that starts with them, instead of running it.
            inputs_embeds: projected maps of the backbone, instead of running it.
            labels: the objects of each image, ``class_labels`` [n] int64 and ``boxes`` [n, 4] (cx, cy, w, h) in 0..1;
                in training mode denoising queries are made of them and stand before the others in every output.
            generators: one for each image, on the CPU, for the noise of denoising; None takes torch's own.
            output_attentions: return attention weights too; None asks the configuration, here and below.
            output_hidden_states: return the states between layers too.
            return_dict: False returns a tuple of what is not None.

        Returns:
            :class:`~rtdetr.model.RTDetrV2ModelOutput`.

        Raises:
            ValueError: ``pixel_values`` has another shape or kind of number, or ``labels`` are malformed.
        """
        config = self.config
        attentions = config.output_attentions if output_attentions is None else output_attentions
        states = (
            config.output_hidden_states if output_hidden_states is None else output_hidden_states
        )
        encoder_record, decoder_record = (
            Recorder(attentions=attentions, states=states) for _ in range(2)
        )
        if encoder_outputs is None:
            maps = self.embed(pixel_values) if inputs_embeds is None else inputs_embeds
            maps = self.encoder(maps, encoder_record)
        else:
            maps = encoder_maps(encoder_outputs)
        denoising = self.denoise(labels, maps[0], generators)
        stages = self.decode(maps, decoder_record, denoising=denoising)
        decoded, selection = stages.decoded, stages.selection
        output = RTDetrV2ModelOutput(
            last_hidden_state=decoded.states[:, -1],
            intermediate_hidden_states=decoded.states,
            intermediate_logits=decoded.logits,
            intermediate_reference_points=decoded.boxes,
            decoder_hidden_states=decoder_record.recorded("hidden"),
            decoder_attentions=decoder_record.recorded("weights"),
            cross_attentions=decoder_record.recorded("cross_weights"),
            encoder_last_hidden_state=maps,
            encoder_hidden_states=encoder_record.recorded("hidden"),
            encoder_attentions=encoder_record.recorded("weights"),
            init_reference_points=stages.start,
            enc_topk_logits=selection.scores,
            enc_topk_bboxes=selection.boxes.sigmoid(),
            enc_outputs_class=stages.proposals.scores,
            enc_outputs_coord_logits=self.boxes_of_all_pixels(stages.proposals),
            denoising_meta_values=denoising and denoising.describe(selection.boxes.shape[1]),
        )
        as_dict = config.return_dict if return_dict is None else return_dict
        return output if as_dict else output.to_tuple()

    def denoise(
        self,
        labels: Sequence[Labels] | Objects | None,
        like: Tensor,  # [B, ...]
        generators: Sequence[torch.Generator] | None,
    ) -> DenoisingQueries | None:
        """Denoising queries of a batch, in training alone."""
        config = self.config
        if labels is None or not self.training or config.num_denoising == 0:
            return None
        objects = Objects.from_labels(labels, len(like), config.num_labels, like.device)
        embedding = self.denoising_class_embed
        return make_denoising(objects, embedding, config, config.num_queries, generators)

    def decode(
        self,
        maps: list[Tensor],
        record: Recorder,
        selection: Selection | None = None,
        denoising: DenoisingQueries | None = None,
    ) -> Intermediates:
        """From the encoder's maps to the decoder's outputs.

        Args:
            maps: the encoder's, finest first.
            record: of what the decoder's layers produce.
            selection: start from those pixels; None selects.
            denoising: queries to put before the others.
        """
        memory, levels = self.flatten(maps)
        proposals = self.propose(memory, levels)
        selection = selection or self.choose(proposals)
        content, start = self.first_content(selection.content), selection.boxes.detach()
        mask = None
        if denoising is not None:
            content = torch.cat([denoising.content.to(content.dtype), content], 1)
            start = torch.cat([denoising.boxes.to(start.dtype), start], 1)
            # Small maps have fewer pixels than queries are asked for; those of the image are the last ones.
            mask = denoising.mask[: start.shape[1], : start.shape[1]]
        decoded = self.decoder(content, start, memory, levels, mask, record)
        return Intermediates(proposals, selection, start, decoded)

    def embed(self, pixel_values: Tensor | None) -> list[Tensor]:
        """The maps of the backbone, each brought to the encoder's width."""
        pixels = check_pixels(pixel_values, self.config).to(self.dtype)
        maps = zip(self.encoder_input_proj, self.backbone(pixels), strict=True)
        return [project(x) for project, x in maps]

    def flatten(self, maps: list[Tensor]) -> tuple[Tensor, Levels]:
        """The maps at the decoder's width as one sequence [B, S, C], and their sizes; extra levels are made here."""
        projections = list(self.decoder_input_proj)
        levels = [project(x) for project, x in zip(projections, maps, strict=False)]
        for index, project in enumerate(projections[len(maps) :]):
            levels.append(project(levels[-1] if index else maps[-1]))
        sizes = tuple((x.shape[2], x.shape[3]) for x in levels)
        return torch.cat([to_tokens(x) for x in levels], 1), sizes

    def propose(self, memory: Tensor, levels: Levels) -> Proposals:
        """What each pixel would be as a query. Pixels whose anchor is not used are seen as 0."""
        anchors, used = self.anchors(levels, device=memory.device)
        content = self.enc_output(memory * used.to(memory.dtype))
        boxes = (anchors + self.enc_bbox_head(content)).expand(content.shape[0], -1, -1)
        return Proposals(content, self.enc_score_head(content), boxes)

    def choose(self, proposals: Proposals) -> Selection:
        """The pixels that become queries."""
        return select(proposals, self.config.num_queries, self.config.query_select_method)

    def boxes_of_all_pixels(self, proposals: Proposals) -> Tensor | None:
        """Logits [B, S, 4]; None where only the pixels that become queries get boxes."""
        return proposals.boxes

    def first_content(self, content: Tensor) -> Tensor:
        """The queries as the decoder gets them: the encoder's, which are not trained by it, or learned ones."""
        if not self.config.learn_initial_query:
            return content.detach()
        learned = self.weight_embedding.weight[: content.shape[1]]
        return learned.expand(content.shape[0], -1, -1)

    def freeze_backbone(self) -> None:
        """Train nothing of the backbone."""
        self.backbone.freeze()

    def unfreeze_backbone(self) -> None:
        """Train the backbone, but for what ``freeze_at`` keeps."""
        self.backbone.unfreeze()


def projection(
    in_channels: int, out_channels: int, *, eps: float, extra: bool = False
) -> nn.Module:
    """Convolution and normalization: 1x1, or 3x3 of stride 2 for a level that the encoder does not have."""
    kernel, stride, padding = (3, 2, 1) if extra else (1, 1, 0)
    convolution = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels, eps))


def decoder_projections(config: RTDetrV2Config, eps: float) -> nn.ModuleList:
    width = config.d_model
    extra = config.num_feature_levels - len(config.decoder_in_channels)
    inner = [projection(channels, width, eps=eps) for channels in config.decoder_in_channels]
    first = config.decoder_in_channels[-1]
    extra_projections = [
        projection(width if n else first, width, eps=eps, extra=True) for n in range(extra)
    ]
    projections = nn.ModuleList([*inner, *extra_projections])
    for layer in projections:
        nn.init.xavier_uniform_(layer.get_parameter("0.weight"))
    return projections


def score_head(config: RTDetrV2Config, classes: int) -> nn.Linear:
    """Starts with each class at the prior probability."""
    head = nn.Linear(config.d_model, classes)
    prior = config.initializer_bias_prior_prob or 0.01
    nn.init.constant_(head.bias, -math.log((1 - prior) / prior))
    return head


def box_head(width: int) -> MLPHead:
    """Starts without moving any box."""
    head = MLPHead(width, width, 4, layers=3)
    for parameter in head.layers[-1].parameters():
        nn.init.zeros_(parameter)
    return head
