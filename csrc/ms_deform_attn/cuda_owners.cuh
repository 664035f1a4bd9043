// SPDX-License-Identifier: Apache-2.0
// Gradient of value without reductions in memory: every pixel has one owner, a warp that looks
// through the taps of its level in their order and adds those that touch its pixels. The result is
// the same to the bit every time, needs no zeros beforehand and is rounded once.
#pragma once

#include "ms_deform_attn/cuda_taps.cuh"

namespace rtdetr_ops {
namespace {

// What owners must know of the taps of levels [first_level, L), level by level, [B, M] first,
// queries before points. An absent table has no `cells`.
struct TapRecords {
  int2* cells;    // column and row of corner 0
  void* weights;  // fx, fy and attention, of the compute type
  int first_level, first_tap;

  // Of level l, for one (b, m).
  __device__ std::int64_t level_begin(const KernelProblem& p, int b, int m, int l) const {
    const std::int64_t taps = p.T - first_tap, bm = static_cast<std::int64_t>(b) * p.M + m;
    return (bm * taps + p.levels[l].first_tap - first_tap) * p.Q;
  }

  template <class A>
  __device__ void put(const KernelProblem& p, Index at, int tap, int l, const Tap<A>& t) const {
    const LevelRow& level = p.levels[l];
    const std::int64_t i = level_begin(p, at.b, at.m, l) +
                           static_cast<std::int64_t>(at.q) * level.points + tap - level.first_tap;
    cells[i] = make_int2(t.column, t.row);
    A* const weight = static_cast<A*>(weights) + 3 * i;
    weight[0] = t.fx;
    weight[1] = t.fy;
    weight[2] = t.attention;
  }
};

struct OwnerArgs {
  KernelProblem problem;
  TapRecords records;
  const void* grad_out;  // [B, Q, M, D]
  void* grad_value;      // [B, S, M, D]
};

// A tile has 2^exponent pixels: few where many taps fall, so that owners have about equal work.
struct Tiles {
  static constexpr int kMostPixels = 5;  // exponent; a warp keeps their sums in shared memory
  static constexpr int kTaps = 1024;     // aimed at, for each tile
  static constexpr int kWarps = 4;       // of a block, a tile each

  __host__ __device__ static Patch of(const KernelProblem& p, LevelSize size, int points) {
    const std::int64_t pixels = static_cast<std::int64_t>(size.height) * size.width;
    const std::int64_t taps = static_cast<std::int64_t>(p.Q) * points;
    int exponent = kMostPixels;
    while (exponent > 0 && taps << exponent > kTaps * pixels) --exponent;
    return Patch(exponent);
  }
};

// A tile of a level: columns [x, x + width) and rows [y, y + height).
struct Tile {
  int level;
  int x, y, width, height;
  Patch patch;
  LevelSize size;

  // Tile `index` of the levels that have owners; false behind the last.
  __device__ bool find(const KernelProblem& p, int first_level, int index) {
    for (level = first_level; level < p.L; ++level) {
      size = level_size(p, level);
      patch = Tiles::of(p, size, p.levels[level].points);
      const int columns = patch.columns_of(size.width);
      const int count = patch.rows_of(size.height) * columns;
      if (index < count) {
        x = (index % columns) << patch.columns;
        y = (index / columns) << patch.rows;
        width = min(1 << patch.columns, size.width - x);
        height = min(1 << patch.rows, size.height - y);
        return true;
      }
      index -= count;
    }
    return false;
  }

  __device__ bool may_touch(int2 cell) const {
    return static_cast<unsigned>(cell.x + 1 - x) <= static_cast<unsigned>(width) &&
           static_cast<unsigned>(cell.y + 1 - y) <= static_cast<unsigned>(height);
  }

  // Place of a pixel in the sums of the tile, or -1.
  __device__ int slot(int column, int row) const {
    const int dx = column - x, dy = row - y;
    const bool inside = dx >= 0 && dx < width && dy >= 0 && dy < height;
    return inside ? (dy << patch.columns) + dx : -1;
  }
};

// The sums of a tile, one channel per lane: no two lanes meet.
template <class V>
struct TileSums {
  using A = Compute<V>;
  A* sums;  // [pixels, 32], at the lane's channel

  __device__ void clear() const {
    for (int i = 0; i < 1 << Tiles::kMostPixels; ++i) sums[i * kWarp] = A(0);
  }

  __device__ void add(const Tile& tile, int2 cell, const A (&weight)[kCorners], int used,
                      A grad) const {
#pragma unroll
    for (int c = 0; c < kCorners; ++c) {
      const int slot = tile.slot(cell.x + c % 2, cell.y + c / 2);
      if (c < used && slot >= 0) {
        sums[slot * kWarp] = multiply_add(weight[c], grad, sums[slot * kWarp]);
      }
    }
  }

  __device__ void write(const KernelProblem& p, const Tile& tile, int b, int m, int channel,
                        V* grad_value) const {
    for (int y = 0; y < tile.height; ++y) {
      for (int x = 0; x < tile.width; ++x) {
        const std::int64_t pixel = static_cast<std::int64_t>(b) * p.S + tile.size.first_pixel +
                                   static_cast<std::int64_t>(tile.y + y) * tile.size.width +
                                   tile.x + x;
        const bool kept = p.mask == nullptr || p.mask[pixel];
        const A sum = sums[((y << tile.patch.columns) + x) * kWarp];
        if (channel < p.D) {
          grad_value[(pixel * p.M + m) * p.D + channel] = Narrow<V>::from(kept ? sum : A(0));
        }
      }
    }
  }
};

// Adds, in order, the taps whose bit is set among the 32 from `first` on. Four rows of grad_out are
// under way before the first is used.
template <class V>
__device__ inline void add_taps(const OwnerArgs& args, const Tile& tile, const TileSums<V>& sums,
                                int b, int m, int channel, std::int64_t begin, int first, int2 cell,
                                unsigned hits) {
  using A = Compute<V>;
  constexpr int kAhead = 4;
  const KernelProblem& p = args.problem;
  const int points = p.levels[tile.level].points;
  const V* const grad_out = static_cast<const V*>(args.grad_out) + channel;
  while (hits != 0) {
    int lane[kAhead];
    A grad[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      lane[i] = __ffs(static_cast<int>(hits)) - 1;  // -1 when no bit is left
      hits &= hits - 1;
      const std::int64_t query =
          static_cast<std::int64_t>(b) * p.Q + (first + (lane[i] < 0 ? 0 : lane[i])) / points;
      grad[i] = lane[i] >= 0 && channel < p.D ? widen(grad_out[(query * p.M + m) * p.D]) : A(0);
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (lane[i] < 0) break;
      const A* const record =
          static_cast<const A*>(args.records.weights) + 3 * (begin + first + lane[i]);
      Tap<A> tap;
      tap.fx = record[0];
      tap.fy = record[1];
      tap.attention = record[2];
      A weight[kCorners];
      tap.weigh(weight);
      const int2 corner =
          make_int2(__shfl_sync(~0u, cell.x, lane[i]), __shfl_sync(~0u, cell.y, lane[i]));
      sums.add(tile, corner, weight, p.discrete ? 1 : kCorners, grad[i]);
    }
  }
}

template <class V>
__global__ void __launch_bounds__(Tiles::kWarps* kWarp)
    own_value_kernel(const __grid_constant__ OwnerArgs args) {
  using A = Compute<V>;
  const KernelProblem& p = args.problem;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int m = static_cast<int>(blockIdx.y) % p.M;
  const int channel = static_cast<int>(blockIdx.y) / p.M * kWarp + lane;
  const TileSums<V> sums = {reinterpret_cast<A*>(shared_memory()) +
                            (warp << Tiles::kMostPixels) * kWarp + lane};
  const int stride = static_cast<int>(gridDim.x) * Tiles::kWarps;
  Tile tile = {0, 0, 0, 0, 0, Patch(0), {}};
  for (int b = static_cast<int>(blockIdx.z); b < p.B; b += static_cast<int>(gridDim.z)) {
    for (int index = static_cast<int>(blockIdx.x) * Tiles::kWarps + warp;
         tile.find(p, args.records.first_level, index); index += stride) {
      sums.clear();
      const int taps = p.Q * p.levels[tile.level].points;
      const std::int64_t begin = args.records.level_begin(p, b, m, tile.level);
      for (int first = 0; first < taps; first += kWarp) {
        const bool present = lane < taps - first;
        const int2 cell =
            present ? args.records.cells[begin + first + lane] : make_int2(kNowhere, kNowhere);
        const unsigned hits = __ballot_sync(~0u, tile.may_touch(cell));
        add_taps<V>(args, tile, sums, b, m, channel, begin, first, cell, hits);
      }
      sums.write(p, tile, b, m, channel, static_cast<V*>(args.grad_value));
    }
  }
}

}  // namespace
}  // namespace rtdetr_ops
