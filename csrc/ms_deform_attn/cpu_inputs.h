// SPDX-License-Identifier: Apache-2.0
// From the arguments of either entry to the location and attention weight of each tap, and back
// from their gradients.
#pragma once

#include "ms_deform_attn/cpu_taps.h"

namespace rtdetr_ops {
namespace {

// A block: queries [q, q + queries) of head m of image b, and taps [tap, tap + taps.taps) of each.
struct Block {
  std::int64_t b, m, q, queries, tap;
};

template <class A, class S>
void convert(const S* const __restrict from, std::int64_t n, A* const __restrict to) {
  for (std::int64_t i = 0; i < n; ++i) to[i] = static_cast<A>(to_float(from[i]));
}

template <class A, class S>
void convert_points_xy(const S* const __restrict from, std::int64_t n, A* const __restrict x,
                       A* const __restrict y) {
  for (std::int64_t i = 0; i < n; ++i) {
    x[i] = static_cast<A>(to_float(from[2 * i]));
    y[i] = static_cast<A>(to_float(from[2 * i + 1]));
  }
}

// Queries of one head are M vectors apart, too far for the processor to foresee.
constexpr std::int64_t kPrefetchAhead = 16;

template <class S>
void prefetch_lines(const S* from, std::int64_t n) {
  for (std::int64_t byte = 0; byte < n * static_cast<std::int64_t>(sizeof(S)); byte += 64) {
    __builtin_prefetch(reinterpret_cast<const char*>(from) + byte);
  }
}

template <class A>
void load_points_xy(const TapsView& view, const Block& k, std::int64_t taps, A* x, A* y) {
  with_dtype(view.dtype, [&](auto storage) {
    using S = decltype(storage);
    const S* from = static_cast<const S*>(view.data) + k.b * view.stride_b + k.q * view.stride_q +
                    k.m * view.stride_m + 2 * k.tap;
    for (std::int64_t q = 0; q < k.queries; ++q, from += view.stride_q) {
      prefetch_lines(from + kPrefetchAhead * view.stride_q, 2 * taps);
      convert_points_xy(from, taps, x + q * taps, y + q * taps);
    }
  });
}

template <class A>
void load_point_scores(const TapsView& view, const Block& k, std::int64_t taps, A* out) {
  with_dtype(view.dtype, [&](auto storage) {
    using S = decltype(storage);
    const S* from = static_cast<const S*>(view.data) + k.b * view.stride_b + k.q * view.stride_q +
                    k.m * view.stride_m + k.tap;
    for (std::int64_t q = 0; q < k.queries; ++q, from += view.stride_q) {
      prefetch_lines(from + kPrefetchAhead * view.stride_q, taps);
      convert(from, taps, out + q * taps);
    }
  });
}

// exp for arguments <= 0, to about an ulp: 2^n * e^r with |r| <= ln(2) / 2, coefficients of Cephes'
// expf.
inline float exp_of_nonpositive(float x) {
  const float shifted = x * 1.44269504088896341f + 12582912.0f;  // 1.5 * 2^23 rounds to an integer
  const float n = shifted - 12582912.0f;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float e = 1.9875691500e-4f;
  e = e * r + 1.3981999507e-3f;
  e = e * r + 8.3334519073e-3f;
  e = e * r + 4.1665795894e-2f;
  e = e * r + 1.6666665459e-1f;
  e = e * r + 5.0000001201e-1f;
  e = e * (r * r) + r + 1.0f;
  std::int32_t bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  bits = static_cast<std::int32_t>((static_cast<std::uint32_t>(bits) + 127u) << 23);
  float scale;
  std::memcpy(&scale, &bits, sizeof scale);
  return x < -87.0f ? 0.0f : e * scale;
}
inline double exp_of_nonpositive(double x) { return __builtin_exp(x); }

template <class A>
void softmax(A* const __restrict x, std::int64_t n) {
  A peak = -std::numeric_limits<A>::infinity();
  for (std::int64_t i = 0; i < n; ++i) peak = x[i] > peak ? x[i] : peak;
  A sum = 0;
  for (std::int64_t i = 0; i < n; ++i) x[i] = exp_of_nonpositive(x[i] - peak);
  for (std::int64_t i = 0; i < n; ++i) sum += x[i];
  const A scale = A(1) / sum;
  for (std::int64_t i = 0; i < n; ++i) x[i] *= scale;
}

// What the fused entry keeps between the offsets and the locations, for the way back.
template <class A>
struct FusedTaps {
  explicit FusedTaps(const Problem& p, std::int64_t queries)
      : T(p.T),
        offset_x(queries * T),
        offset_y(queries * T),
        step_x(queries * T),
        step_y(queries * T),
        logits(T),
        reference(queries * p.reference.levels * p.reference.coords) {}
  std::int64_t T;
  Buffer<A> offset_x, offset_y;  // as given
  Buffer<A> step_x, step_y;      // d location / d offset
  Buffer<A> logits;              // [T]
  Buffer<A> reference;           // [queries, 1|L, 2|4]
};

template <class A>
void load_reference(const Problem& p, const Block& k, A* reference) {
  const std::int64_t stride = p.reference.levels * p.reference.coords;
  with_dtype(p.reference.dtype, [&](auto storage) {
    using S = decltype(storage);
    const S* from = static_cast<const S*>(p.reference.data) + (k.b * p.Q + k.q) * stride;
    convert(from, k.queries * stride, reference);
  });
}

// The step of a 4-d reference: half the box, shared by the points of the level.
template <class A>
A box_factor(const Problem& p, const Level& level) {
  return static_cast<A>(p.offset_scale / static_cast<double>(level.points > 0 ? level.points : 1));
}

// x, y hold offsets on entry and locations on return. `strips` says which levels the taps of this
// block belong to.
template <class A>
void locate_level(const Problem& p, const Block& k, std::int64_t l, std::int64_t tap,
                  const Taps<A>& t, const FusedTaps<A>& f) {
  const Level& level = p.levels[l];
  const std::int64_t coords = p.reference.coords;
  const A width = static_cast<A>(level.width), height = static_cast<A>(level.height);
  for (std::int64_t q = 0; q < k.queries; ++q) {
    const A* const point =
        f.reference + (q * p.reference.levels + (p.reference.levels == 1 ? 0 : l)) * coords;
    const std::int64_t begin = q * t.taps + tap;
    if (coords == 2) {
      for (std::int64_t i = begin; i < begin + level.points; ++i) {
        t.x[i] = point[0] + t.x[i] / width;
        t.y[i] = point[1] + t.y[i] / height;
        f.step_x[i] = A(1) / width;
        f.step_y[i] = A(1) / height;
      }
    } else {
      const A step_x = point[2] * box_factor<A>(p, level),
              step_y = point[3] * box_factor<A>(p, level);
      for (std::int64_t i = begin; i < begin + level.points; ++i) {
        t.x[i] = point[0] + t.x[i] * step_x;
        t.y[i] = point[1] + t.y[i] * step_y;
        f.step_x[i] = step_x;
        f.step_y[i] = step_y;
      }
    }
  }
}

template <class A>
void load_attention_from_logits(const Problem& p, const Block& k, const Taps<A>& t,
                                const FusedTaps<A>& f) {
  for (std::int64_t q = 0; q < k.queries; ++q) {
    // The softmax runs over all T logits even when the block holds the taps of one level.
    load_point_scores(p.point_scores, Block{k.b, k.m, k.q + q, 1, 0}, p.T,
                      static_cast<A*>(f.logits));
    softmax(static_cast<A*>(f.logits), p.T);
    std::memcpy(t.attention + q * t.taps, f.logits + k.tap,
                static_cast<std::size_t>(t.taps) * sizeof(A));
  }
}

// Fills x, y (locations) and attention for levels [l_begin, l_end), whose taps the block holds.
template <class A>
void load_taps(const Problem& p, const Block& k, std::int64_t l_begin, std::int64_t l_end,
               const Taps<A>& t, const FusedTaps<A>& f) {
  load_points_xy(p.points_xy, k, t.taps, static_cast<A*>(t.x), static_cast<A*>(t.y));
  if (!p.fused) {
    load_point_scores(p.point_scores, k, t.taps, static_cast<A*>(t.attention));
    return;
  }
  const std::size_t bytes = static_cast<std::size_t>(k.queries * t.taps) * sizeof(A);
  std::memcpy(f.offset_x, t.x, bytes);
  std::memcpy(f.offset_y, t.y, bytes);
  load_attention_from_logits(p, k, t, f);
  load_reference(p, k, static_cast<A*>(f.reference));
  for (std::int64_t l = l_begin; l < l_end; ++l) {
    locate_level(p, k, l, p.levels[l].first_tap - k.tap, t, f);
  }
}

template <class S, class A>
void store_numbers(S* const __restrict to, std::int64_t n, const A* const __restrict from) {
  for (std::int64_t i = 0; i < n; ++i) to[i] = Rounded<S>::from(from[i]);
}

// Gradients are written for all T taps of a query; `view` is contiguous [B, Q, M, T(, 2)].
template <class A>
void store_tap_gradients(const Problem& p, const Block& k, const A* gx, const A* gy, const A* ga,
                         void* grad_points_xy, void* grad_point_scores) {
  for (std::int64_t q = 0; q < k.queries; ++q) {
    const std::int64_t first = ((k.b * p.Q + k.q + q) * p.M + k.m) * p.T;
    if (grad_points_xy != nullptr) {
      with_dtype(p.points_xy.dtype, [&](auto storage) {
        using S = decltype(storage);
        S* const to = static_cast<S*>(grad_points_xy) + 2 * first;
        for (std::int64_t i = 0; i < p.T; ++i) {
          to[2 * i] = Rounded<S>::from(gx[q * p.T + i]);
          to[2 * i + 1] = Rounded<S>::from(gy[q * p.T + i]);
        }
      });
    }
    if (grad_point_scores != nullptr) {
      with_dtype(p.point_scores.dtype, [&](auto storage) {
        using S = decltype(storage);
        store_numbers(static_cast<S*>(grad_point_scores) + first, p.T, ga + q * p.T);
      });
    }
  }
}

// gradient of the attention weights -> gradient of the logits, in place
template <class A>
void softmax_backward(const A* const __restrict attention, A* const __restrict grad,
                      std::int64_t n) {
  A mean = 0;
  for (std::int64_t i = 0; i < n; ++i) mean += attention[i] * grad[i];
  for (std::int64_t i = 0; i < n; ++i) grad[i] = attention[i] * (grad[i] - mean);
}

// A point that touches nothing has slope 0, also where the other factor is not finite.
template <class A>
inline A chain(A slope, A factor) {
  return slope == A(0) ? A(0) : slope * factor;
}

// gradient of the locations -> the share of this head in the gradient of the reference
template <class A>
void store_head_reference(const Problem& p, const Block& k, const FusedTaps<A>& f, const A* gx,
                          const A* gy, A* head_grad_reference) {
  const std::int64_t coords = p.reference.coords, stride = p.reference.levels * coords;
  A* grad = head_grad_reference + ((k.m * p.B + k.b) * p.Q + k.q) * stride;
  std::memset(grad, 0, static_cast<std::size_t>(k.queries * stride) * sizeof(A));
  for (std::int64_t q = 0; q < k.queries; ++q, grad += stride) {
    for (std::int64_t l = 0; l < p.L; ++l) {
      const Level& level = p.levels[l];
      A* const g = grad + (p.reference.levels == 1 ? 0 : l * coords);
      const A factor = box_factor<A>(p, level);
      const std::int64_t begin = q * p.T + level.first_tap;
      for (std::int64_t i = begin; i < begin + level.points; ++i) {
        g[0] += gx[i];
        g[1] += gy[i];
        if (coords == 4) {
          g[2] += chain(gx[i], f.offset_x[i] * factor);
          g[3] += chain(gy[i], f.offset_y[i] * factor);
        }
      }
    }
  }
}

// Elements [begin, end) of the gradient of the reference
template <class A>
void sum_head_reference(const Problem& p, const A* head_grad_reference, std::int64_t begin,
                        std::int64_t end, void* grad_reference) {
  const std::int64_t size = p.B * p.Q * p.reference.levels * p.reference.coords;
  with_dtype(p.reference.dtype, [&](auto storage) {
    using S = decltype(storage);
    for (std::int64_t i = begin; i < end; ++i) {
      A sum = 0;
      for (std::int64_t m = 0; m < p.M; ++m) sum += head_grad_reference[m * size + i];
      static_cast<S*>(grad_reference)[i] = Rounded<S>::from(sum);
    }
  });
}

}  // namespace
}  // namespace rtdetr_ops
