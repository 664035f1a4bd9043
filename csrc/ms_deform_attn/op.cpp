// SPDX-License-Identifier: Apache-2.0
// The schemas of the registered operators.
//
// `levels` is flat, [H_0, W_0, H_1, ...]; where `level_sizes` is given, a tensor [L, 2] beside
// `value`, it counts and `levels` is empty.
#include <torch/csrc/stable/library.h>

#include "common/errors.h"

STABLE_TORCH_LIBRARY_FRAGMENT(rtdetr_ops, m) {
  m.def(
      "ms_deform_attn(Tensor value, SymInt[] levels, Tensor? level_sizes, Tensor locations, "
      "Tensor weights, int[] points, bool discrete) -> Tensor");
  m.def(
      "ms_deform_attn_backward(Tensor grad_output, Tensor value, SymInt[] levels, "
      "Tensor? level_sizes, Tensor locations, Tensor weights, int[] points, bool discrete, "
      "bool deterministic, bool needs_value, bool needs_locations, bool needs_weights) "
      "-> (Tensor, Tensor, Tensor)");
  m.def(
      "ms_deform_attn_fused(Tensor value, SymInt[] levels, Tensor? level_sizes, Tensor reference, "
      "Tensor offsets, Tensor logits, int[] points, bool discrete, float offset_scale, "
      "Tensor? value_mask) -> Tensor");
  m.def(
      "ms_deform_attn_fused_backward(Tensor grad_output, Tensor value, SymInt[] levels, "
      "Tensor? level_sizes, Tensor reference, Tensor offsets, Tensor logits, int[] points, "
      "bool discrete, float offset_scale, Tensor? value_mask, bool deterministic, "
      "bool needs_value, bool needs_reference, bool needs_offsets, bool needs_logits) "
      "-> (Tensor, Tensor, Tensor, Tensor)");
}
