// SPDX-License-Identifier: Apache-2.0
// The three passes over a call, each a loop over independent tasks; compiled once per instruction
// set.
#pragma once

#include "ms_deform_attn/cpu_inputs.h"
#include "ms_deform_attn/cpu_kernels.h"
#include "ms_deform_attn/cpu_pixels.h"

namespace rtdetr_ops {
namespace {

// Enough taps per block for the vectorized geometry to pay, few enough for its arrays to stay in
// the first-level cache.
constexpr std::int64_t kTapsPerBlock = 256;

std::int64_t block_queries(const Problem& p, std::int64_t taps) {
  const std::int64_t queries = kTapsPerBlock / (taps > 0 ? taps : 1);
  return queries > p.Q ? p.Q : queries > 0 ? queries : 1;
}

std::int64_t blocks(const Problem& p) {
  if (p.Q == 0) return 0;
  const std::int64_t size = block_queries(p, p.T);
  return (p.Q + size - 1) / size;
}

std::int64_t query_tasks(const Problem& p) { return p.B * p.M * blocks(p); }

Block query_block(const Problem& p, std::int64_t task) {
  const std::int64_t size = block_queries(p, p.T), bm = task / blocks(p),
                     q = task % blocks(p) * size;
  return {bm / p.M, bm % p.M, q, q + size < p.Q ? size : p.Q - q, 0};
}

template <class A>
void find_corners(const Problem& p, const Block& k, const Taps<A>& taps, std::int64_t first_pixel) {
  const std::int64_t n = k.queries * taps.taps;
  if (p.discrete) {
    find_discrete_pixel(taps, n);
  } else {
    find_bilinear_corners(taps, n);
  }
  if (p.mask != nullptr) {
    drop_masked_pixels(taps, n, p.mask + k.b * p.S + first_pixel, p.discrete ? 1 : kCorners);
  }
}

// Corner weights of the forward sum: the attention weight alone in discrete mode.
template <class A>
void weigh_corners(const Problem& p, const Block& k, const Taps<A>& taps,
                   A* const weight[kCorners]) {
  const std::int64_t n = k.queries * taps.taps;
  if (p.discrete) {
    std::memcpy(weight[0], taps.attention, static_cast<std::size_t>(n) * sizeof(A));
  } else {
    corner_weights(taps, n, weight);
  }
}

template <class A>
struct CornerWeights {
  explicit CornerWeights(std::int64_t size)
      : w0(size), w1(size), w2(size), w3(size), all{w0, w1, w2, w3} {}
  Buffer<A> w0, w1, w2, w3;
  A* const all[kCorners];
};

// The pixels of one head: where they lie in `value`, or a copy with the pixels of the head side by
// side.
//
// In `value` the pixels of a head are M*D elements apart, which maps them onto a fraction of the
// cache sets: a head can use 1/M of each cache. When a task reads every pixel several times the
// copy costs less than the misses it saves.
template <class V>
class HeadPixels {
 public:
  HeadPixels(const Problem& p, std::int64_t tasks)
      : problem_(p), copies_(pays(p, tasks)), copy_(copies_ ? p.S * p.D : 0) {}

  void select(const Block& k) {
    if (k.b == b_ && k.m == m_) return;
    b_ = k.b, m_ = k.m;
    const ValueView& value = problem_.value;
    data = static_cast<const V*>(value.data) + b_ * value.stride_b + m_ * value.stride_m;
    stride = value.stride_s;
    if (!copies_) return;
    const std::size_t bytes = static_cast<std::size_t>(problem_.D) * sizeof(V);
    for (std::int64_t s = 0; s < problem_.S; ++s) {
      prefetch_lines(data + (s + kPrefetchAhead) * stride, problem_.D);
      std::memcpy(copy_ + s * problem_.D, data + s * stride, bytes);
    }
    data = copy_;
    stride = problem_.D;
  }

  const V* data = nullptr;  // pixel 0
  std::int64_t stride = 0;  // elements between pixels

 private:
  static constexpr std::int64_t kReadsPerPixel = 8;

  static bool pays(const Problem& p, std::int64_t tasks) {
    const std::int64_t head_tasks = tasks < blocks(p) ? tasks : blocks(p);
    const std::int64_t reads =
        head_tasks * block_queries(p, p.T) * p.T * (p.discrete ? 1 : kCorners);
    return p.M > 1 && reads >= kReadsPerPixel * p.S;
  }

  const Problem& problem_;
  const bool copies_;
  const Buffer<V> copy_;
  std::int64_t b_ = -1, m_ = -1;
};

// The address of the pixel of each corner. A corner outside reads zeros, so that the loops
// have no branch and no pixel is read that no point touches.
template <class V>
struct PixelAddresses {
  PixelAddresses(const Problem& p, std::int64_t size)
      : p0(size), p1(size), p2(size), p3(size), all{p0, p1, p2, p3}, zeros(p.D) {
    std::memset(zeros, 0, static_cast<std::size_t>(p.D) * sizeof(V));
  }

  void resolve(const Problem& p, const HeadPixels<V>& pixels, const Taps<Compute<V>>& taps,
               std::int64_t n) const {
    const V* const outside = zeros;
    for (int corner = 0; corner < (p.discrete ? 1 : kCorners); ++corner) {
      const std::int32_t* const __restrict index = taps.pixels(corner);
      const V** const __restrict address = all[corner];
      for (std::int64_t i = 0; i < n; ++i) {
        address[i] = index[i] >= 0 ? pixels.data + index[i] * pixels.stride : outside;
      }
    }
  }

  GatherInputs<V> inputs(const Block& k, std::int64_t taps,
                         const Compute<V>* const weight[kCorners]) const {
    GatherInputs<V> in = {k.queries, taps, {}, {}};
    for (int corner = 0; corner < kCorners; ++corner) {
      in.pixel[corner] = all[corner];
      in.weight[corner] = weight[corner];
    }
    return in;
  }

  Buffer<const V*> p0, p1, p2, p3;
  const V** const all[kCorners];
  Buffer<V> zeros;  // [D]
};

template <class V>
void forward(const Forward& args, std::int64_t begin, std::int64_t end) {
  using A = Compute<V>;
  const Problem& p = args.problem;
  const std::int64_t queries = block_queries(p, p.T), size = queries * p.T, stride = p.M * p.D;
  const Taps<A> taps(queries, p.T);
  const FusedTaps<A> fused(p, p.fused ? queries : 0);
  const CornerWeights<A> weights(size);
  HeadPixels<V> pixels(p, end - begin);
  const PixelAddresses<V> addresses(p, size);
  set_all_levels(taps, p);
  for (std::int64_t task = begin; task < end; ++task) {
    const Block k = query_block(p, task);
    pixels.select(k);
    load_taps(p, k, 0, p.L, taps, fused);
    find_corners(p, k, taps, 0);
    weigh_corners(p, k, taps, weights.all);
    addresses.resolve(p, pixels, taps, k.queries * p.T);
    const GatherInputs<V> in = addresses.inputs(k, p.T, weights.all);
    V* const out = static_cast<V*>(args.out) + (k.b * p.Q + k.q) * stride + k.m * p.D;
    for_each_chunk<V>(p.D, [&](auto c) {
      p.discrete ? gather_pixels<1>(in, c, out, stride)
                 : gather_pixels<kCorners>(in, c, out, stride);
    });
  }
}

// dots -> gradients of the location (x, y) and of the attention weight, in place of x, y and in
// `ga`
template <class A>
void tap_gradients(const Taps<A>& t, std::int64_t n, const A* const __restrict dots,
                   A* const __restrict ga) {
  A* const __restrict x = t.x;
  A* const __restrict y = t.y;
  const A* const __restrict attention = t.attention;
  const A* const __restrict width = t.width;
  const A* const __restrict height = t.height;
  for (std::int64_t i = 0; i < n; ++i) {
    const A d0 = dots[4 * i], d1 = dots[4 * i + 1], d2 = dots[4 * i + 2], d3 = dots[4 * i + 3];
    const A wx = x[i], wy = y[i];
    ga[i] = (A(1) - wy) * ((A(1) - wx) * d0 + wx * d1) + wy * ((A(1) - wx) * d2 + wx * d3);
    x[i] = attention[i] * width[i] * ((A(1) - wy) * (d1 - d0) + wy * (d3 - d2));
    y[i] = attention[i] * height[i] * ((A(1) - wx) * (d2 - d0) + wx * (d3 - d1));
  }
}

// A discrete pixel does not move with the location.
template <class A>
void discrete_tap_gradients(const Taps<A>& t, std::int64_t n, const A* const __restrict dots,
                            A* const __restrict ga) {
  std::memset(t.x, 0, static_cast<std::size_t>(n) * sizeof(A));
  std::memset(t.y, 0, static_cast<std::size_t>(n) * sizeof(A));
  for (std::int64_t i = 0; i < n; ++i) ga[i] = dots[4 * i];
}

// Location and weight gradients -> offset and logit gradients, in place
template <class A>
void fused_tap_gradients(const Problem& p, const Block& k, const Taps<A>& t, const FusedTaps<A>& f,
                         A* ga) {
  for (std::int64_t i = 0; i < k.queries * p.T; ++i) {
    t.x[i] = chain<A>(t.x[i], f.step_x[i]);
    t.y[i] = chain<A>(t.y[i], f.step_y[i]);
  }
  for (std::int64_t q = 0; q < k.queries; ++q) {
    softmax_backward(t.attention + q * p.T, ga + q * p.T, p.T);
  }
}

template <class V>
void backward_taps(const Backward& args, std::int64_t begin, std::int64_t end) {
  using A = Compute<V>;
  const Problem& p = args.problem;
  const std::int64_t queries = block_queries(p, p.T), size = queries * p.T, stride = p.M * p.D;
  const Taps<A> taps(queries, p.T);
  const FusedTaps<A> fused(p, p.fused ? queries : 0);
  HeadPixels<V> pixels(p, end - begin);
  const PixelAddresses<V> addresses(p, size);
  const Buffer<A> dots(kCorners * size), grad_attention(size);
  const A* const no_weights[kCorners] = {};
  set_all_levels(taps, p);
  for (std::int64_t task = begin; task < end; ++task) {
    const Block k = query_block(p, task);
    const std::int64_t n = k.queries * p.T;
    pixels.select(k);
    load_taps(p, k, 0, p.L, taps, fused);
    find_corners(p, k, taps, 0);
    addresses.resolve(p, pixels, taps, n);
    const GatherInputs<V> in = addresses.inputs(k, p.T, no_weights);
    const V* const grad_out =
        static_cast<const V*>(args.grad_out) + (k.b * p.Q + k.q) * stride + k.m * p.D;
    std::memset(dots, 0, static_cast<std::size_t>(kCorners * n) * sizeof(A));
    for_each_chunk<V>(p.D, [&](auto c) {
      p.discrete ? dot_pixels<1, V>(in, c, grad_out, stride, dots)
                 : dot_pixels<kCorners, V>(in, c, grad_out, stride, dots);
    });
    p.discrete ? discrete_tap_gradients<A>(taps, n, dots, grad_attention)
               : tap_gradients<A>(taps, n, dots, grad_attention);
    if (args.grad_reference != nullptr) {
      store_head_reference<A>(p, k, fused, taps.x, taps.y,
                              static_cast<A*>(args.head_grad_reference));
    }
    if (p.fused) fused_tap_gradients<A>(p, k, taps, fused, grad_attention);
    store_tap_gradients<A>(p, k, taps.x, taps.y, grad_attention, args.grad_points_xy,
                           args.grad_point_scores);
  }
}

template <class V>
void backward_reference(const Backward& args, std::int64_t begin, std::int64_t end) {
  const std::int64_t stride = args.problem.reference.levels * args.problem.reference.coords;
  sum_head_reference(args.problem, static_cast<const Compute<V>*>(args.head_grad_reference),
                     begin * stride, end * stride, args.grad_reference);
}

// Levels are split into strips only when there are too few (b, m, level) for the threads.
std::int64_t strips_per_level(const Problem& p, std::int64_t threads) {
  const std::int64_t levels = p.B * p.M * p.L, least = 2 * threads;
  return levels == 0 || levels >= least ? 1 : (least + levels - 1) / levels;
}

std::int64_t value_tasks(const Problem& p, std::int64_t threads) {
  return p.B * p.M * p.L * strips_per_level(p, threads);
}

struct ValueTask {
  std::int64_t b, m;
  Strip strip;
};

ValueTask value_task(const Problem& p, std::int64_t threads, std::int64_t task) {
  const std::int64_t strips = strips_per_level(p, threads);
  const std::int64_t strip = task % strips, l = task / strips % p.L, bm = task / strips / p.L;
  const Level& level = p.levels[l];
  const std::int64_t y_begin = level.height * strip / strips,
                     y_end = level.height * (strip + 1) / strips;
  return {bm / p.M, bm % p.M, {l, y_begin, y_end, 0}};
}

// Adds the points of one level and head into `accumulator`, queries in order, whatever the strip:
// the sums of a pixel do not depend on the number of threads.
template <class V>
void accumulate_strip(const Backward& args, const ValueTask& task, Compute<V>* accumulator,
                      std::int64_t pitch) {
  using A = Compute<V>;
  const Problem& p = args.problem;
  const Level& level = p.levels[task.strip.level];
  const std::int64_t points = level.points, queries = block_queries(p, points), stride = p.M * p.D;
  const Taps<A> taps(queries, points);
  const FusedTaps<A> fused(p, p.fused ? queries : 0);
  const CornerWeights<A> weights(queries * points);
  set_level(taps, level, task.strip, 0, points);
  for (std::int64_t q = 0; q < p.Q; q += queries) {
    const Block k = {task.b, task.m, q, q + queries < p.Q ? queries : p.Q - q, level.first_tap};
    load_taps(p, k, task.strip.level, task.strip.level + 1, taps, fused);
    find_corners(p, k, taps, level.first_pixel + task.strip.y_begin * level.width);
    weigh_corners(p, k, taps, weights.all);
    const V* const grad_out =
        static_cast<const V*>(args.grad_out) + (k.b * p.Q + q) * stride + k.m * p.D;
    for_each_chunk<V>(p.D, [&](auto c) {
      p.discrete
          ? scatter_pixels<1>(taps, k.queries, weights.all, c, grad_out, stride, accumulator, pitch)
          : scatter_pixels<kCorners>(taps, k.queries, weights.all, c, grad_out, stride, accumulator,
                                     pitch);
    });
  }
}

template <class V>
void backward_value(const Backward& args, std::int64_t threads, std::int64_t begin,
                    std::int64_t end) {
  using A = Compute<V>;
  const Problem& p = args.problem;
  const std::int64_t pitch = p.D > kLanes<A> ? p.D : kLanes<A>;
  std::int64_t most = 0;
  for (std::int64_t task = begin; task < end; ++task) {
    const ValueTask t = value_task(p, threads, task);
    const std::int64_t pixels = (t.strip.y_end - t.strip.y_begin) * p.levels[t.strip.level].width;
    most = pixels > most ? pixels : most;
  }
  const Buffer<A> accumulator(most * pitch);
  for (std::int64_t task = begin; task < end; ++task) {
    const ValueTask t = value_task(p, threads, task);
    const Level& level = p.levels[t.strip.level];
    const std::int64_t pixels = (t.strip.y_end - t.strip.y_begin) * level.width;
    std::memset(accumulator, 0, static_cast<std::size_t>(pixels * pitch) * sizeof(A));
    accumulate_strip<V>(args, t, accumulator, pitch);
    const std::int64_t first = t.b * p.S + level.first_pixel + t.strip.y_begin * level.width;
    V* const to = static_cast<V*>(args.grad_value) + (first * p.M + t.m) * p.D;
    for (std::int64_t i = 0; i < pixels; ++i)
      store_accumulator<V>(accumulator + i * pitch, p.D, to + i * p.M * p.D);
  }
}

template <class V>
constexpr CpuPasses passes() {
  return {forward<V>, backward_taps<V>, backward_reference<V>, backward_value<V>};
}

constexpr CpuKernels make_kernels(const char* isa) {
  return {isa,
          query_tasks,
          value_tasks,
          {passes<double>(), passes<float>(), passes<BFloat16>(), passes<Float16>()}};
}

}  // namespace
}  // namespace rtdetr_ops
