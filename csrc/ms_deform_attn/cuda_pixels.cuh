// SPDX-License-Identifier: Apache-2.0
// Pixels: their channels in `value` at the corners of a tap, a few channels per lane.
#pragma once

#include "ms_deform_attn/cuda_taps.cuh"

namespace rtdetr_ops {
namespace {

// The lane's channels of one head of `value`.
template <class V>
struct HeadPixels {
  const char* first;  // of pixel 0
  unsigned pixel_bytes;

  __device__ HeadPixels(const KernelProblem& p, Index at, int channel)
      : first(reinterpret_cast<const char*>(static_cast<const V*>(p.value.data) +
                                            at.b * p.value.stride_b + at.m * p.value.stride_m +
                                            channel)),
        pixel_bytes(p.pixel_bytes) {}
};

// The pixels at the corners of one tap. What no point touches is not read and counts as 0.
template <class V, int kBytes, int kUsed>
struct CornerPixels {
  using A = Compute<V>;
  static constexpr int kChannels = Pack<V, kBytes>::kChannels;
  Pack<V, kBytes> pack[kUsed];

  __device__ CornerPixels(const HeadPixels<V>& head, int4 pixels) {
    const int pixel[kCorners] = {pixels.x, pixels.y, pixels.z, pixels.w};
#pragma unroll
    for (int c = 0; c < kUsed; ++c) {
      pack[c] = Pack<V, kBytes>::load_pixel(head.first, pixel[c], head.pixel_bytes);
    }
  }

  __device__ void add_to(A (&sum)[kChannels], const Quad<A>& weight) const {
#pragma unroll
    for (int c = 0; c < kUsed; ++c) {
      A channel[kChannels];
      pack[c].unpack(channel);
#pragma unroll
      for (int i = 0; i < kChannels; ++i) sum[i] = multiply_add(weight.of[c], channel[i], sum[i]);
    }
  }

  // The lane's part of <grad, pixel of each corner>.
  __device__ void dot_with(const A (&grad)[kChannels], A (&dots)[kCorners]) const {
#pragma unroll
    for (int c = 0; c < kUsed; ++c) {
      A channel[kChannels];
      pack[c].unpack(channel);
#pragma unroll
      for (int i = 0; i < kChannels; ++i) dots[c] = multiply_add(grad[i], channel[i], dots[c]);
    }
  }
};

}  // namespace
}  // namespace rtdetr_ops
