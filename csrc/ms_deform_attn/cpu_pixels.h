// SPDX-License-Identifier: Apache-2.0
// Sums over the D channels of pixels: gather (forward), dots (gradients of taps), scatter
// (gradient of value). N vectors of a pixel stay in registers while the taps of a query pass by.
#pragma once

#include "ms_deform_attn/cpu_taps.h"

namespace rtdetr_ops {
namespace {

// Vectors of one pixel that are held at a time, and sums in flight: half of the vector registers.
constexpr int kMostVectors = 4;
constexpr int kMostSums = kVectorBytes == 64 ? 16 : 8;

#ifndef RTDETR_PREFETCH
#define RTDETR_PREFETCH 8
#endif
constexpr std::int64_t kPrefetchTaps = RTDETR_PREFETCH;

// Channels [channel, channel + count) of a pixel. kPartial: fewer than one vector, in a pixel
// that has no more channels.
template <int N, bool kPartial>
struct Chunk {
  static constexpr int kVectors = N;
  static constexpr bool kIsPartial = kPartial;
  std::int64_t channel;
  int skip;   // leading lanes that another chunk owns
  int count;  // lanes in use of a partial vector
};

template <class V, int N, class F>
void for_full_chunks(std::int64_t channel, std::int64_t D, F& f) {
  constexpr int lanes = N * kLanes<Compute<V>>;
  for (; channel + lanes <= D; channel += lanes) f(Chunk<N, false>{channel, 0, lanes});
  if constexpr (N > 1) for_full_chunks<V, N / 2>(channel, D, f);
}

// The remainder comes first and overlaps the last full chunk: whoever writes pixels writes the full
// chunks over it.
template <class V, class F>
void for_each_chunk(std::int64_t D, F&& f) {
  constexpr int lanes = kLanes<Compute<V>>;
  const int rest = static_cast<int>(D % lanes);
  if (D < lanes) return f(Chunk<1, true>{0, 0, rest});
  if (rest != 0) f(Chunk<1, false>{D - lanes, lanes - rest, lanes});
  for_full_chunks<V, kMostVectors>(0, D, f);
}

template <class V, int N, bool kPartial>
inline void load_chunk(const V* pixel, const Chunk<N, kPartial>& c, Vec<Compute<V>> v[N]) {
  if constexpr (kPartial) {
    v[0] = load_partial(pixel + c.channel, c.count);
  } else {
    Registers<V, N>::load(pixel + c.channel, v);
  }
}

template <class V, int N, bool kPartial>
inline void store_chunk(V* pixel, const Chunk<N, kPartial>& c, const Vec<Compute<V>> v[N]) {
  if constexpr (kPartial) {
    store_partial(pixel + c.channel, v[0], c.count);
  } else {
    Registers<V, N>::store(pixel + c.channel, v);
  }
}

// The lanes that this chunk owns, 0 in the others, so that sums over chunks count each channel
// once.
template <class V, int N, bool kPartial>
inline void load_owned(const V* pixel, const Chunk<N, kPartial>& c, Vec<Compute<V>> v[N]) {
  load_chunk(pixel, c, v);
  if (c.skip > 0) v[0] = clear_leading<Compute<V>>(v[0], c.skip);
}

// Asks for the lines of one chunk of a pixel.
template <class V, int N, bool kPartial>
inline void prefetch_chunk(const V* pixel, const Chunk<N, kPartial>& c) {
  constexpr int bytes = N * kLanes<Compute<V>> * static_cast<int>(sizeof(V));
  for (int line = 0; line < bytes; line += 64) {
    __builtin_prefetch(reinterpret_cast<const char*>(pixel + c.channel) + line);
  }
}

template <class V>
struct GatherInputs {
  std::int64_t queries, taps;
  const V* const* pixel[kCorners];     // [queries, taps] the channels [D] of each corner
  const Compute<V>* weight[kCorners];  // [queries, taps]
};

// out[q] = sum over taps and corners of weight * pixel. Corners have sums of their own as far as
// registers allow: one sum for all would wait for each multiply-add in turn.
template <int K, class V, int N, bool kPartial>
void gather_pixels(const GatherInputs<V>& in, const Chunk<N, kPartial>& c, V* out,
                   std::int64_t out_stride) {
  using A = Compute<V>;
  constexpr int sets = kMostSums / N < K ? kMostSums / N : K;
  const std::int64_t n = in.queries * in.taps;
  std::int64_t i = 0;
  for (std::int64_t q = 0; q < in.queries; ++q, out += out_stride) {
    Vec<A> sum[sets][N] = {};
    for (const std::int64_t end = i + in.taps; i < end; ++i) {
      if (i + kPrefetchTaps < n) {
        for (int k = 0; k < K; ++k) prefetch_chunk(in.pixel[k][i + kPrefetchTaps], c);
      }
      for (int k = 0; k < K; ++k) {
        Vec<A> v[N];
        load_chunk(in.pixel[k][i], c, v);
        const Vec<A> w = splat(in.weight[k][i]);
        for (int j = 0; j < N; ++j) sum[k % sets][j] = multiply_add(v[j], w, sum[k % sets][j]);
      }
    }
    for (int set = 1; set < sets; ++set) {
      for (int j = 0; j < N; ++j) sum[0][j] += sum[set][j];
    }
    store_chunk(out, c, sum[0]);
  }
}

// dots[i][k] += <grad_out[q], pixel of corner k of tap i>
template <int K, class V, int N, bool kPartial>
void dot_pixels(const GatherInputs<V>& in, const Chunk<N, kPartial>& c, const V* grad_out,
                std::int64_t grad_stride, Compute<V>* dots) {
  using A = Compute<V>;
  const std::int64_t n = in.queries * in.taps;
  std::int64_t i = 0;
  for (std::int64_t q = 0; q < in.queries; ++q, grad_out += grad_stride) {
    Vec<A> g[N];
    load_owned(grad_out, c, g);
    for (const std::int64_t end = i + in.taps; i < end; ++i) {
      if (i + kPrefetchTaps < n) {
        for (int k = 0; k < K; ++k) prefetch_chunk(in.pixel[k][i + kPrefetchTaps], c);
      }
      Vec<A> products[kCorners] = {};
      for (int k = 0; k < K; ++k) {
        Vec<A> v[N];
        load_chunk(in.pixel[k][i], c, v);
        for (int j = 0; j < N; ++j) products[k] = multiply_add(v[j], g[j], products[k]);
      }
      A sums[kCorners];
      sum_lanes(products, sums);
      for (int k = 0; k < kCorners; ++k) dots[kCorners * i + k] += sums[k];
    }
  }
}

// accumulator[pixel] += weight * grad_out[q] for every corner that has a pixel; pixels are `pitch`
// apart
template <int K, class V, int N, bool kPartial>
void scatter_pixels(const Taps<Compute<V>>& taps, std::int64_t queries,
                    Compute<V>* const weight[kCorners], const Chunk<N, kPartial>& c,
                    const V* grad_out, std::int64_t grad_stride, Compute<V>* accumulator,
                    std::int64_t pitch) {
  using A = Compute<V>;
  const std::int32_t* const pixels[kCorners] = {taps.pixel0, taps.pixel1, taps.pixel2, taps.pixel3};
  std::int64_t i = 0;
  for (std::int64_t q = 0; q < queries; ++q, grad_out += grad_stride) {
    Vec<A> g[N];
    load_owned(grad_out, c, g);
    for (const std::int64_t end = i + taps.taps; i < end; ++i) {
      for (int k = 0; k < K; ++k) {
        if (pixels[k][i] < 0) continue;
        A* const to = accumulator + pixels[k][i] * pitch + c.channel;
        const Vec<A> w = splat(weight[k][i]);
        for (int j = 0; j < N; ++j) {
          A* const lanes = to + j * kLanes<A>;
          store_vector(lanes, multiply_add(g[j], w, load_vector<Vec<A>>(lanes)));
        }
      }
    }
  }
}

// A pixel of the accumulator, in the lane order of the chunks -> a pixel of storage
template <class V>
void store_accumulator(const Compute<V>* accumulator, std::int64_t D, V* pixel) {
  for_each_chunk<V>(D, [&](auto c) {
    Vec<Compute<V>> v[c.kVectors];
    Registers<Compute<V>, c.kVectors>::load(accumulator + c.channel, v);
    store_chunk(pixel, c, v);
  });
}

}  // namespace
}  // namespace rtdetr_ops
