// SPDX-License-Identifier: Apache-2.0
// A problem as the kernels see it, passed by value, and which lanes work on which (b, q, m).
#pragma once

#include "common/device.cuh"
#include "ms_deform_attn/params.h"

namespace rtdetr_ops {
namespace {

constexpr int kMaxLevels = 16;

// Four numbers, because 16 bytes are one load.
struct LevelSize {
  int height, width;
  int first_pixel;  // on the S axis
  int fits;         // 0 on every level of a table on the device that does not add up to S
};

struct LevelEntry {
  LevelSize size;
  int first_tap, points;
  double box_factor;  // of a 4-d reference: offset_scale, shared by the points of the level
};

struct KernelProblem {
  int B, Q, M, L, T, D, S;
  bool discrete, fused;
  bool patches;                    // queries are the pixels, and a block takes a patch of them
  const LevelSize* device_levels;  // [L], or null where `levels` has the sizes
  LevelEntry levels[kMaxLevels];
  ValueView value;          // [B, S, M, D]
  unsigned pixel_bytes;     // between pixels of `value`
  const bool* mask;         // [B, S], or null
  TapsView points_xy;       // [B, Q, M, T, 2]
  TapsView point_scores;    // [B, Q, M, T]
  ReferenceView reference;  // [B, Q, 1|L, 2|4]
};

__device__ inline LevelSize level_size(const KernelProblem& p, int l) {
  return p.device_levels != nullptr ? p.device_levels[l] : p.levels[l].size;
}

__device__ inline int level_of_tap(const KernelProblem& p, int tap) {
  int l = 0;
  while (tap >= p.levels[l].first_tap + p.levels[l].points) ++l;
  return l;
}

// How lanes share the work, in powers of two given as exponents: a team of lanes works on one
// (b, q, m); a group of its lanes covers the channels, and the groups of a team take turns with the
// taps.
struct Split {
  int team, group;
};

struct Lanes {
  int lane;           // of the warp
  int rank;           // of the lane in its team
  int channel_rank;   // of the lane in its group
  int slice, slices;  // of the group in its team
  int team;           // its index in the block

  __device__ explicit Lanes(Split split) {
    const int thread = static_cast<int>(threadIdx.x);
    lane = thread % kWarp;
    rank = lane & ((1 << split.team) - 1);
    channel_rank = rank & ((1 << split.group) - 1);
    slice = rank >> split.group;
    slices = 1 << (split.team - split.group);
    team = thread >> split.team;
  }
};

// A block takes 2^log2_queries queries of one head: side by side on the Q axis, or, where queries
// are pixels, a patch of a level. Neighboring pixels sample the same pixels, which the first-level
// cache then reads once.
struct Patch {
  int log2_height, log2_width;
  __host__ __device__ explicit Patch(int log2_pixels)
      : log2_height(log2_pixels / 2), log2_width(log2_pixels - log2_pixels / 2) {}
  __host__ __device__ int tiles_down(int height) const { return ((height - 1) >> log2_height) + 1; }
  __host__ __device__ int tiles_across(int width) const { return ((width - 1) >> log2_width) + 1; }
};

__host__ inline int block_count(const KernelProblem& p, int log2_queries) {
  if (!p.patches) return ((p.Q - 1) >> log2_queries) + 1;
  const Patch patch(log2_queries);
  int count = 0;
  for (int l = 0; l < p.L; ++l) {
    const LevelSize size = p.levels[l].size;
    count += patch.tiles_down(size.height) * patch.tiles_across(size.width);
  }
  return count;
}

// The query of team `team` of block `block`, or -1 where the last block or a patch reaches over the
// end.
__device__ inline int query_of(const KernelProblem& p, int log2_queries, int block, int team) {
  if (!p.patches) {
    const int query = (block << log2_queries) + team;
    return query < p.Q ? query : -1;
  }
  const Patch patch(log2_queries);
  for (int l = 0; l < p.L; ++l) {
    const LevelSize size = p.levels[l].size;
    const int across = patch.tiles_across(size.width),
              count = patch.tiles_down(size.height) * across;
    if (block < count) {
      const int y = ((block / across) << patch.log2_height) + (team >> patch.log2_width);
      const int x = ((block % across) << patch.log2_width) + (team & ((1 << patch.log2_width) - 1));
      return y < size.height && x < size.width ? size.first_pixel + y * size.width + x : -1;
    }
    block -= count;
  }
  return -1;
}

template <class A>
__device__ inline A team_sum(A x, Split split) {
  for (int mask = (1 << split.team) >> 1; mask > 0; mask >>= 1) x += __shfl_xor_sync(~0u, x, mask);
  return x;
}

template <class A>
__device__ inline A team_max(A x, Split split) {
  for (int mask = (1 << split.team) >> 1; mask > 0; mask >>= 1) {
    const A other = __shfl_xor_sync(~0u, x, mask);
    x = other > x ? other : x;
  }
  return x;
}

}  // namespace
}  // namespace rtdetr_ops
