// SPDX-License-Identifier: Apache-2.0
// The deterministic gradient of value: a tile of pixels belongs to one warp, which looks through
// the taps of the level in their order and adds those that touch the tile. The result is the same
// to the bit every time, needs no zeros beforehand and is rounded once.
#pragma once

#include "ms_deform_attn/cuda_taps.cuh"

namespace rtdetr_ops {
namespace {

// What the backward of the taps records for the gradient of value: [B, M] first, then level by
// level, queries before points. An absent table has no `cells`.
struct TapRecords {
  int2* cells;    // [B, M, T * Q] x and y of corner 0
  void* weights;  // [B, M, T * Q, 3] fx, fy and attention, of the compute type

  // Of level l, for one (b, m).
  __device__ std::int64_t level_begin(const KernelProblem& p, int b, int m, int l) const {
    return ((static_cast<std::int64_t>(b) * p.M + m) * p.T + p.levels[l].first_tap) * p.Q;
  }

  template <class A>
  __device__ void put(const KernelProblem& p, Index at, int tap, int l, const Tap<A>& t) const {
    const LevelEntry& level = p.levels[l];
    const std::int64_t i = level_begin(p, at.b, at.m, l) +
                           static_cast<std::int64_t>(at.q) * level.points + tap - level.first_tap;
    cells[i] = make_int2(t.x0, t.y0);
    A* const weight = static_cast<A*>(weights) + 3 * i;
    weight[0] = t.fx;
    weight[1] = t.fy;
    weight[2] = t.attention;
  }
};

struct DeterministicArgs {
  KernelProblem problem;
  TapRecords records;
  const void* grad_out;  // [B, Q, M, D]
  void* grad_value;      // [B, S, M, D]
};

// A tile has 2^exponent pixels: few where many taps fall, so that warps have about equal work.
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

// A tile of a level: x in [x, x + width), y in [y, y + height).
struct Tile {
  int level;
  int x, y, width, height;
  Patch patch;
  LevelSize size;

  // Tile `index`; false behind the last.
  __device__ bool find(const KernelProblem& p, int index) {
    for (level = 0; level < p.L; ++level) {
      size = level_size(p, level);
      patch = Tiles::of(p, size, p.levels[level].points);
      const int across = patch.tiles_across(size.width);
      const int count = patch.tiles_down(size.height) * across;
      if (index < count) {
        x = (index % across) << patch.log2_width;
        y = (index / across) << patch.log2_height;
        width = min(1 << patch.log2_width, size.width - x);
        height = min(1 << patch.log2_height, size.height - y);
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
  __device__ int slot(int pixel_x, int pixel_y) const {
    const int dx = pixel_x - x, dy = pixel_y - y;
    const bool inside = dx >= 0 && dx < width && dy >= 0 && dy < height;
    return inside ? (dy << patch.log2_width) + dx : -1;
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
        const A sum = sums[((y << tile.patch.log2_width) + x) * kWarp];
        if (channel < p.D) {
          grad_value[(pixel * p.M + m) * p.D + channel] = Narrow<V>::from(kept ? sum : A(0));
        }
      }
    }
  }
};

// Taps that touch a tile, in order, until there are enough to work on several at once: the warp
// then waits for memory once for all of them.
template <class A>
struct HitQueue {
  static constexpr int kChunks =
      4;  // of a warp's taps, looked through at a time; see check_limits()
  static constexpr int kAhead = sizeof(A) == 8 ? 4 : 8;  // taken at a time, held in registers
  static constexpr int kSlots = kChunks * kWarp + kAhead;

  int4* hits;  // [kSlots]: x and y of the cell, number of the tap among those of the level
  int lane;
  int count;

  __device__ void put(bool is_hit, int2 cell, int tap) {
    const unsigned all = __ballot_sync(~0u, is_hit);
    const int before = __popc(all & ((1u << lane) - 1));
    if (is_hit) hits[count + before] = make_int4(cell.x, cell.y, tap, 0);
    count += __popc(all);
  }

  // Leaves fewer than kAhead.
  __device__ void drop(int first) {
    const bool stays = lane < count - first;
    const int4 hit = hits[stays ? first + lane : 0];
    __syncwarp();
    if (stays) hits[lane] = hit;
    count -= first;
  }
};

// Adds the next taps of the queue, in order.
template <class V>
__device__ inline void add_hits(const DeterministicArgs& args, const Tile& tile,
                                const TileSums<V>& sums, int b, int m, int channel,
                                std::int64_t begin, const int4* hits, int count) {
  using A = Compute<V>;
  const KernelProblem& p = args.problem;
  const int points = p.levels[tile.level].points;
  const V* const grad_out = static_cast<const V*>(args.grad_out) + channel;
  const A* const weights = static_cast<const A*>(args.records.weights);
  constexpr int kAhead = HitQueue<A>::kAhead;
  int2 cell[kAhead];
  Tap<A> tap[kAhead];
  A grad[kAhead];
#pragma unroll
  for (int i = 0; i < kAhead; ++i) {
    if (i >= count) break;
    const int4 hit = hits[i];
    const std::int64_t query = static_cast<std::int64_t>(b) * p.Q + hit.z / points;
    const A* const record = weights + 3 * (begin + hit.z);
    cell[i] = make_int2(hit.x, hit.y);
    tap[i].fx = record[0];
    tap[i].fy = record[1];
    tap[i].attention = record[2];
    grad[i] = channel < p.D ? widen(grad_out[(query * p.M + m) * p.D]) : A(0);
  }
#pragma unroll
  for (int i = 0; i < kAhead; ++i) {
    if (i >= count) break;
    A weight[kCorners];
    tap[i].weigh(weight);
    sums.add(tile, cell[i], weight, p.discrete ? 1 : kCorners, grad[i]);
  }
}

struct TileMemory {
  static constexpr int kTileNumbers = (1 << Tiles::kMostPixels) * kWarp;

  template <class A>
  __host__ __device__ static constexpr int bytes() {
    return Tiles::kWarps * (kTileNumbers * static_cast<int>(sizeof(A)) +
                            HitQueue<A>::kSlots * static_cast<int>(sizeof(int4)));
  }

  template <class A>
  __device__ static A* sums(int warp) {
    return reinterpret_cast<A*>(shared_memory()) + warp * kTileNumbers;
  }

  template <class A>
  __device__ static int4* hits(int warp) {
    return reinterpret_cast<int4*>(sums<A>(Tiles::kWarps)) + warp * HitQueue<A>::kSlots;
  }
};

template <class V>
__global__ void __launch_bounds__(Tiles::kWarps* kWarp, 4)
    deterministic_value_kernel(const __grid_constant__ DeterministicArgs args) {
  using A = Compute<V>;
  const KernelProblem& p = args.problem;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int m = static_cast<int>(blockIdx.y) % p.M;
  const int channel = static_cast<int>(blockIdx.y) / p.M * kWarp + lane;
  const TileSums<V> sums = {TileMemory::sums<A>(warp) + lane};
  using Queue = HitQueue<A>;
  Queue queue = {TileMemory::hits<A>(warp), lane, 0};
  const int stride = static_cast<int>(gridDim.x) * Tiles::kWarps;
  Tile tile = {0, 0, 0, 0, 0, Patch(0), {}};
  for (int b = static_cast<int>(blockIdx.z); b < p.B; b += static_cast<int>(gridDim.z)) {
    for (int index = static_cast<int>(blockIdx.x) * Tiles::kWarps + warp; tile.find(p, index);
         index += stride) {
      sums.clear();
      queue.count = 0;
      const int taps = p.Q * p.levels[tile.level].points;
      const std::int64_t begin = args.records.level_begin(p, b, m, tile.level);
      for (int first = 0; first < taps; first += Queue::kChunks * kWarp) {
        int2 cell[Queue::kChunks];
#pragma unroll
        for (int i = 0; i < Queue::kChunks; ++i) {
          const int tap = first + i * kWarp + lane;
          cell[i] = tap < taps ? args.records.cells[begin + tap] : make_int2(kNowhere, kNowhere);
        }
#pragma unroll
        for (int i = 0; i < Queue::kChunks; ++i) {
          queue.put(tile.may_touch(cell[i]), cell[i], first + i * kWarp + lane);
        }
        __syncwarp();
        int done = 0;
        for (; done + Queue::kAhead <= queue.count; done += Queue::kAhead) {
          add_hits<V>(args, tile, sums, b, m, channel, begin, queue.hits + done, Queue::kAhead);
        }
        queue.drop(done);
        __syncwarp();
      }
      add_hits<V>(args, tile, sums, b, m, channel, begin, queue.hits, queue.count);
      __syncwarp();
      sums.write(p, tile, b, m, channel, static_cast<V*>(args.grad_value));
    }
  }
}

}  // namespace
}  // namespace rtdetr_ops
