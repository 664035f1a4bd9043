// SPDX-License-Identifier: Apache-2.0
// Kernels that a device may hang on or answer at random.
#include "probe.h"

namespace {

using probes::launch;

constexpr unsigned kAll = 0xffffffff;

__global__ void divergent_barrier_kernel() {
  if (threadIdx.x == 5) {
    __syncwarp();
  } else {
    __syncthreads();
  }
}
PROBE(divergent_barrier) { launch({.block = 32}, divergent_barrier_kernel); }

__global__ void exited_lane_kernel() {
  if (threadIdx.x == 37) return;
  __shfl_sync(kAll, 1.0f, 0);
}
PROBE(exited_lane) { launch({}, exited_lane_kernel); }

__global__ void late_exit_kernel() {
  if (threadIdx.x != 7) __syncwarp();
  if (threadIdx.x == 7) __syncthreads();
}
PROBE(lane_at_barrier) { launch({.block = 32}, late_exit_kernel); }

__global__ void outside_mask_kernel() { __ballot_sync(0x7fffffff, 1); }
PROBE(outside_mask) { launch({.block = 32}, outside_mask_kernel); }

__global__ void masks_differ_kernel() {
  __shfl_xor_sync(threadIdx.x < 16 ? kAll : kAll << 1, 1, 1);
}
PROBE(masks_differ) { launch({.block = 32}, masks_differ_kernel); }

__global__ void operations_differ_kernel() {
  if (threadIdx.x % 2 == 0) {
    __shfl_down_sync(kAll, 1, 1);
  } else {
    __shfl_up_sync(kAll, 1, 1);
  }
}
PROBE(operations_differ) { launch({.block = 32}, operations_differ_kernel); }

template <class T, int kWidth>
__global__ void width_kernel() {
  __shfl_xor_sync(kAll, T(1), 1, kWidth);
}
PROBE(width) { launch({.grid = {1, 1, 1}, .block = 32}, width_kernel<float, 12>); }

__global__ void second_kernel(int* count) { atomicAdd(count, 1); }
PROBE(recovery) {
  std::vector<int> count(1);
  launch({.grid = 50, .block = 1024}, divergent_barrier_kernel);
  launch({.grid = 2}, second_kernel, count.data());
  probes::print(count);
}

}  // namespace
