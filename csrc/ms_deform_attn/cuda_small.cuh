// SPDX-License-Identifier: Apache-2.0
// What surrounds the two large kernels: reading sizes that only the device knows, rounding sums,
// adding up heads.
#pragma once

#include "ms_deform_attn/cuda_taps.cuh"

namespace rtdetr_ops {
namespace {

struct LevelSizesArgs {
  const std::int64_t* sizes;  // [L, 2]
  int L, S;
  LevelSize* out;  // [L]
};

// One thread. A table that does not add up to S becomes levels without pixels that say so.
__global__ void level_sizes_kernel(const __grid_constant__ LevelSizesArgs args) {
  std::int64_t pixels = 0;
  bool fits = true;
  for (int l = 0; l < args.L; ++l) {
    const std::int64_t height = args.sizes[2 * l], width = args.sizes[2 * l + 1];
    fits = fits && height > 0 && width > 0 && height <= args.S && width <= args.S;
    if (fits) {
      args.out[l] = {static_cast<int>(height), static_cast<int>(width), static_cast<int>(pixels),
                     1};
      pixels += height * width;
      fits = pixels <= args.S;
    }
  }
  if (fits && pixels == args.S) return;
  for (int l = 0; l < args.L; ++l) args.out[l] = {0, 0, 0, 0};
}

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
