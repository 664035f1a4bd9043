// SPDX-License-Identifier: Apache-2.0
// Sizes of levels that only the device knows: from the caller's tensor to the table the kernels
// read.
#pragma once

#include "ms_deform_attn/cuda_problem.cuh"

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

}  // namespace
}  // namespace rtdetr_ops
