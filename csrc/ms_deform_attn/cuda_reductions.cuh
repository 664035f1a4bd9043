// SPDX-License-Identifier: Apache-2.0
// What follows the backward of the taps: sums rounded to their storage type, shares of heads added
// up.
#pragma once

#include "ms_deform_attn/cuda_taps.cuh"

namespace rtdetr_ops {
namespace {

struct RoundArgs {
  const float* sums;  // [numbers]
  void* out;          // [numbers]
  std::int64_t numbers;
};

template <class V>
__global__ void __launch_bounds__(256) round_kernel(const __grid_constant__ RoundArgs args) {
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
       i < args.numbers; i += stride) {
    static_cast<V*>(args.out)[i] = Narrow<V>::from(args.sums[i]);
  }
}

struct SumHeadsArgs {
  const void* shares;  // [M, size], compute type
  int M;
  std::int64_t size;
  void* out;  // [size]
  DType dtype;
};

template <class A>
__global__ void __launch_bounds__(256) sum_heads_kernel(const __grid_constant__ SumHeadsArgs args) {
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
       i < args.size; i += stride) {
    A sum = 0;
    for (int m = 0; m < args.M; ++m) sum += static_cast<const A*>(args.shares)[m * args.size + i];
    store_number(args.out, args.dtype, i, sum);
  }
}

}  // namespace
}  // namespace rtdetr_ops
