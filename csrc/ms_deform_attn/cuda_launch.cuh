// SPDX-License-Identifier: Apache-2.0
// From a Problem to a launch: the table the kernels read, the shape of the grid, the workspace.
// Host code.
#pragma once

#include <algorithm>
#include <cstddef>
#include <type_traits>

#include "ms_deform_attn/cuda_kernels.h"
#include "ms_deform_attn/cuda_level_sizes.cuh"

namespace rtdetr_ops {
namespace {

constexpr int kSharedBytes = 48 * 1024;  // more must be asked for

// Parts of one block of memory, each aligned. On null it counts bytes.
class Workspace {
 public:
  explicit Workspace(void* memory) : memory_(static_cast<char*>(memory)) {}

  template <class T>
  T* take(std::int64_t count) {
    char* const part = memory_ == nullptr ? nullptr : memory_ + bytes_;
    bytes_ += (static_cast<std::size_t>(count) * sizeof(T) + 255) / 256 * 256;
    return reinterpret_cast<T*>(part);
  }

  std::size_t bytes() const { return bytes_; }

 private:
  char* memory_;
  std::size_t bytes_ = 0;
};

inline int element_bytes(DType dtype) {
  return dtype == DType::kFloat64 ? 8 : dtype == DType::kFloat32 ? 4 : 2;
}

// Reading the error also takes it away: torch would report it at its own next call.
inline Status status_of(cudaError_t error) {
  if (error == cudaSuccess) return Status();
  cudaGetLastError();
  return Status(cudaGetErrorString(error));
}

// Fails on what the kernels cannot take.
inline Status check_limits(const Problem& p) {
  constexpr std::int64_t kMost = std::int64_t{1} << 30;
  if (p.L > kMaxLevels) return Status("levels: the CUDA kernels take at most 16");
  if (p.value.stride_s * element_bytes(p.value.dtype) > UINT32_MAX) {
    return Status("value: the CUDA kernels take pixels less than 4 GiB apart");
  }
  if (p.B >= kMost || p.Q >= kMost || p.T >= kMost || p.D >= kMost) {
    return Status("value, locations: the CUDA kernels take sizes below 2^30");
  }
  if (p.Q * p.T > INT32_MAX - 4 * kWarp) {  // the deterministic backward counts them, 128 at a time
    return Status("locations: the CUDA kernels take Q * T below 2^31 - 128");
  }
  return Status();
}

inline KernelProblem kernel_problem(const Problem& p, const LevelSize* device_levels) {
  KernelProblem k = {};
  k.B = static_cast<int>(p.B), k.Q = static_cast<int>(p.Q), k.M = static_cast<int>(p.M);
  k.L = static_cast<int>(p.L), k.T = static_cast<int>(p.T), k.D = static_cast<int>(p.D);
  k.S = static_cast<int>(p.S);
  k.discrete = p.discrete;
  k.fused = p.fused;
  k.patches = p.device_levels == nullptr && p.Q == p.S;
  k.device_levels = device_levels;
  for (int l = 0; l < k.L; ++l) {
    const Level& level = p.levels[l];
    LevelEntry& entry = k.levels[l];
    entry.size = {static_cast<int>(level.height), static_cast<int>(level.width),
                  static_cast<int>(level.first_pixel), 1};
    entry.first_tap = static_cast<int>(level.first_tap);
    entry.points = static_cast<int>(level.points);
    entry.box_factor =
        p.offset_scale / static_cast<double>(std::max<std::int64_t>(level.points, 1));
  }
  k.value = p.value;
  k.pixel_bytes = static_cast<unsigned>(p.value.stride_s * element_bytes(p.value.dtype));
  k.mask = p.mask;
  k.points_xy = p.points_xy;
  k.point_scores = p.point_scores;
  k.reference = p.reference;
  return k;
}

// Whether vectors of D channels can be read and written 16 bytes at a time.
inline bool takes_wide_loads(const Problem& p, const void* vectors) {
  const std::int64_t bytes = element_bytes(p.value.dtype);
  const ValueView& v = p.value;
  const std::int64_t all = p.D | v.stride_b | v.stride_s | v.stride_m;
  const auto addresses =
      reinterpret_cast<std::uintptr_t>(v.data) | reinterpret_cast<std::uintptr_t>(vectors);
  return all * bytes % 16 == 0 && addresses % 16 == 0;
}

// Calls f(V, bytes per load), bytes as an integral_constant.
template <class F>
inline void with_loads(const Problem& p, const void* vectors, F&& f) {
  with_dtype(p.value.dtype, [&](auto v) {
    using V = decltype(v);
    if (takes_wide_loads(p, vectors)) {
      f(v, std::integral_constant<int, 16>{});
    } else {
      f(v, std::integral_constant<int, static_cast<int>(sizeof(V))>{});
    }
  });
}

// Of the current device; 1 where it cannot be asked, and the launch itself will say why.
inline int device_attribute(cudaDeviceAttr attribute) {
  int device = 0, value = 1;
  if (cudaGetDevice(&device) != cudaSuccess) return 1;
  return cudaDeviceGetAttribute(&value, attribute, device) == cudaSuccess ? value : 1;
}

// Images side by side in a grid; a block takes another turn for each that is beyond it.
inline unsigned image_blocks(const KernelProblem& p) {
  return static_cast<unsigned>(std::min(p.B, device_attribute(cudaDevAttrMaxGridDimZ)));
}

struct Shape {
  Split split;
  int threads;
  int log2_queries;  // of a block, exponent
};

// Lanes enough for the channels; more of them per query, and small blocks, when there are few
// queries to fill the device with.
inline Shape choose_shape(const KernelProblem& p, int channels_per_lane, int least_group) {
  constexpr int kBusyWarps = 16;  // of a multiprocessor
  Shape shape = {{0, least_group}, 256, 0};
  int& group = shape.split.group;
  while (group < 5 && channels_per_lane << group < p.D) ++group;
  int& team = shape.split.team = group;
  const std::int64_t teams = static_cast<std::int64_t>(p.B) * p.Q * p.M;
  const std::int64_t busy =
      std::int64_t{kBusyWarps} * device_attribute(cudaDevAttrMultiProcessorCount);
  while (team < 5 && 1 << (team - group) < p.T && (teams << team) / kWarp < busy) ++team;
  if ((teams << team) / kWarp < busy) shape.threads = 64;
  return shape;
}

// Fits `warp_bytes(split)` of shared memory per warp into a block; false when not even one warp
// of one team does.
template <class F>
inline bool fit_shared_memory(Shape& shape, const F& warp_bytes) {
  const auto bytes = [&] { return warp_bytes(shape.split) * (shape.threads / kWarp); };
  while (shape.threads > kWarp && bytes() > kSharedBytes) shape.threads /= 2;
  while (shape.split.team < 5 && bytes() > kSharedBytes) ++shape.split.team;
  shape.log2_queries = 0;
  while (shape.threads >> shape.split.team >> shape.log2_queries > 1) ++shape.log2_queries;
  return bytes() <= kSharedBytes;
}

inline cudaLaunchConfig_t launch_config(dim3 grid, int threads, int shared_bytes,
                                        const CudaContext& context) {
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = static_cast<std::size_t>(shared_bytes);
  config.stream = static_cast<cudaStream_t>(context.stream);
  return config;
}

inline dim3 query_grid(const KernelProblem& p, int log2_queries) {
  return dim3(static_cast<unsigned>(block_count(p, log2_queries)), static_cast<unsigned>(p.M),
              image_blocks(p));
}

// Blocks of 256 threads for `numbers`, each thread looping over what is beyond the grid.
inline unsigned block_number(std::int64_t numbers) {
  constexpr std::int64_t kThreads = 256, kMost = 1 << 20;
  return static_cast<unsigned>(std::min((numbers + kThreads - 1) / kThreads, kMost));
}

inline Status read_level_sizes(const Problem& p, LevelSize* out, const CudaContext& context) {
  if (p.device_levels == nullptr) return Status();
  const LevelSizesArgs args = {p.device_levels, static_cast<int>(p.L), static_cast<int>(p.S), out};
  const cudaLaunchConfig_t config = launch_config(dim3(1), 1, 0, context);
  return status_of(cudaLaunchKernelEx(&config, level_sizes_kernel, args));
}

inline LevelSize* take_level_sizes(const Problem& p, Workspace& workspace) {
  return p.device_levels == nullptr ? nullptr : workspace.take<LevelSize>(p.L);
}

}  // namespace
}  // namespace rtdetr_ops
