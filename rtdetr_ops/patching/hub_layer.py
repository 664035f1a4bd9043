# SPDX-License-Identifier: Apache-2.0
"""This library in the kernel slot of transformers, for users of the ``kernels`` package; it is not imported here."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from .adapters import transformers_forward

__all__ = ["InstalledLayer", "MultiScaleDeformableAttention"]


class MultiScaleDeformableAttention(nn.Module):
    """The layer that ``kernels.kernelize`` takes ``forward`` from.

    ``kernels`` takes a class that adds nothing to ``nn.Module`` but a forward with the parameters of the slot and the
    two flags below: no state, no constructor. Its parameters are ``value`` [B, S, M, D], ``value_spatial_shapes``
    [L, 2], ``value_spatial_shapes_list`` (the same on the host), ``level_start_index`` [L], ``sampling_locations``
    [B, Q, M, L, P, 2], ``attention_weights`` [B, Q, M, L, P] and ``im2col_step``; it returns [B, Q, M*D] and raises
    what :func:`rtdetr_ops.ms_deform_attn` raises.
    """

    can_torch_compile = True
    has_backward = True
    forward = transformers_forward


@dataclass(frozen=True)
class InstalledLayer:
    """What a mapping of ``kernels`` holds for the slot: like its ``LayerRepository``, with nothing to download."""

    def load(self) -> type[nn.Module]:
        """The layer's class."""
        return MultiScaleDeformableAttention
