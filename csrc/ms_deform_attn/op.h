// SPDX-License-Identifier: Apache-2.0
// The bodies of the registered operators, the same for every device: `Device` says how one runs.
//
//   static constexpr bool kReadsSizes                    a tensor of level sizes is in host memory
//   static Tensor forward(const Call&)
//   static Gradients backward(const Call&, const Tensor& grad_out, const Needs&,
//                             bool deterministic)
#pragma once

#include <tuple>

#include "ms_deform_attn/call.h"

namespace rtdetr_ops {

template <class Device>
struct Operators {
  using DeviceCall = Call<Device::kReadsSizes>;
  using OptionalTensor = std::optional<Tensor>;

  static Tensor plain(const Tensor& value, const Sizes& levels, const OptionalTensor& level_sizes,
                      const Tensor& locations, const Tensor& weights, const Sizes& points,
                      bool discrete) {
    return Device::forward(
        DeviceCall(value, {levels, level_sizes, points}, locations, weights, discrete));
  }

  static std::tuple<Tensor, Tensor, Tensor> plain_backward(
      const Tensor& grad_output, const Tensor& value, const Sizes& levels,
      const OptionalTensor& level_sizes, const Tensor& locations, const Tensor& weights,
      const Sizes& points, bool discrete, bool deterministic, bool needs_value,
      bool needs_locations, bool needs_weights) {
    const DeviceCall call(value, {levels, level_sizes, points}, locations, weights, discrete);
    const Gradients grads =
        Device::backward(call, dense_grad_output(call, grad_output),
                         {needs_value, needs_locations, needs_weights, false}, deterministic);
    return {grads.value, grads.points_xy, grads.point_scores};
  }

  static Tensor fused(const Tensor& value, const Sizes& levels, const OptionalTensor& level_sizes,
                      const Tensor& reference, const Tensor& offsets, const Tensor& logits,
                      const Sizes& points, bool discrete, double offset_scale,
                      const OptionalTensor& value_mask) {
    return Device::forward(DeviceCall(value, {levels, level_sizes, points}, reference, offsets,
                                      logits, discrete, offset_scale, value_mask));
  }

  static std::tuple<Tensor, Tensor, Tensor, Tensor> fused_backward(
      const Tensor& grad_output, const Tensor& value, const Sizes& levels,
      const OptionalTensor& level_sizes, const Tensor& reference, const Tensor& offsets,
      const Tensor& logits, const Sizes& points, bool discrete, double offset_scale,
      const OptionalTensor& value_mask, bool deterministic, bool needs_value, bool needs_reference,
      bool needs_offsets, bool needs_logits) {
    const DeviceCall call(value, {levels, level_sizes, points}, reference, offsets, logits,
                          discrete, offset_scale, value_mask);
    const Gradients grads = Device::backward(
        call, dense_grad_output(call, grad_output),
        {needs_value, needs_offsets, needs_logits, needs_reference}, deterministic);
    return {grads.value, grads.reference, grads.points_xy, grads.point_scores};
  }
};

template <class Device, class Library>
void implement(Library& library) {
  using Ops = Operators<Device>;
  library.impl("ms_deform_attn", TORCH_BOX(&Ops::plain));
  library.impl("ms_deform_attn_backward", TORCH_BOX(&Ops::plain_backward));
  library.impl("ms_deform_attn_fused", TORCH_BOX(&Ops::fused));
  library.impl("ms_deform_attn_fused_backward", TORCH_BOX(&Ops::fused_backward));
}

}  // namespace rtdetr_ops
