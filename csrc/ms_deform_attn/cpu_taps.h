// SPDX-License-Identifier: Apache-2.0
// Where the taps of a block of queries fall: plain loops over flat arrays, written so that the
// compiler vectorizes them over taps. A tap is one sampling point; tap i of a block is (query i /
// taps, tap i % taps) of one (b, m).
#pragma once

#include <limits>

#include "common/scratch.h"
#include "common/simd.h"
#include "ms_deform_attn/params.h"

namespace rtdetr_ops {
namespace {

// The part of a level that a task sees: lines [y_begin, y_end), whose first pixel has index
// `first_pixel`.
struct Strip {
  std::int64_t level;
  std::int64_t y_begin, y_end;
  std::int64_t first_pixel;
};

// Scratch of one thread for blocks of at most `queries` queries with `taps` taps each.
template <class A>
struct Taps {
  Taps(std::int64_t queries, std::int64_t taps_)
      : taps(taps_),
        size(queries * taps_),
        x(size),
        y(size),
        attention(size),
        width(size),
        height(size),
        columns(size),
        last_column(size),
        last_line(size),
        y_begin(size),
        y_end(size),
        origin(size),
        pixel0(size),
        pixel1(size),
        pixel2(size),
        pixel3(size) {
    // Loops run over whole vectors; what follows the last tap is a level without pixels.
    const std::int64_t padded = (size + kLanes<A> - 1) / kLanes<A> * kLanes<A>;
    for (std::int64_t i = size; i < padded; ++i) {
      width[i] = height[i] = 0;
      columns[i] = last_column[i] = last_line[i] = y_begin[i] = y_end[i] = origin[i] = 0;
    }
  }

  std::int64_t taps;
  std::int64_t size;
  Buffer<A> x, y;       // location, then the fraction inside the pixel cell
  Buffer<A> attention;  // attention weight
  // The level of each tap, repeated for every query of the block.
  Buffer<A> width, height;  // rounded from 2^24 on in float32
  Buffer<std::int32_t> columns, last_column, last_line, y_begin, y_end, origin;
  // Pixel of each corner, -1 where there is none.
  Buffer<std::int32_t> pixel0, pixel1, pixel2, pixel3;

  std::int32_t* pixels(int corner) const {
    std::int32_t* const table[kCorners] = {pixel0, pixel1, pixel2, pixel3};
    return table[corner];
  }
};

template <class A>
void set_level(const Taps<A>& t, const Level& level, const Strip& strip, std::int64_t tap_begin,
               std::int64_t tap_end) {
  for (std::int64_t q = 0; q < t.size; q += t.taps) {
    for (std::int64_t i = q + tap_begin; i < q + tap_end; ++i) {
      t.width[i] = static_cast<A>(level.width);
      t.height[i] = static_cast<A>(level.height);
      t.columns[i] = static_cast<std::int32_t>(level.width);
      t.last_column[i] = static_cast<std::int32_t>(level.width - 1);
      t.last_line[i] = static_cast<std::int32_t>(level.height - 1);
      t.y_begin[i] = static_cast<std::int32_t>(strip.y_begin);
      t.y_end[i] = static_cast<std::int32_t>(strip.y_end);
      t.origin[i] = static_cast<std::int32_t>(strip.first_pixel - strip.y_begin * level.width);
    }
  }
}

template <class A>
void set_all_levels(const Taps<A>& t, const Problem& p) {
  for (std::int64_t l = 0; l < p.L; ++l) {
    const Level& level = p.levels[l];
    const Strip whole = {l, 0, level.height, level.first_pixel};
    set_level(t, level, whole, level.first_tap, level.first_tap + level.points);
  }
}

// floor(v) for |v| < 2^31
template <class A>
inline IntVec<A> floor_to_int(Vec<A> v) {
  const IntVec<A> truncated = __builtin_convertvector(v, IntVec<A>);
  return truncated + lane_mask<A>(v < __builtin_convertvector(truncated, Vec<A>));
}

// location -> corners: pixels(k) and, in place of the location, the fraction inside the cell. A
// point that is not within one pixel of the level, or is not finite, touches nothing; NaN compares
// false and so counts as not within. A number below a rounded width is below the width too: no
// other number of its precision lies between. Vectors by hand: compilers see control flow in the
// comparisons. Arrays are padded to whole vectors.
template <class A>
void find_bilinear_corners(const Taps<A>& t, std::int64_t n) {
  using V = Vec<A>;
  using I = IntVec<A>;
  for (std::int64_t i = 0; i < n; i += kLanes<A>) {
    const V width = load_vector<V>(t.width + i), height = load_vector<V>(t.height + i);
    V x = load_vector<V>(t.x + i) * width - splat(A(0.5));
    V y = load_vector<V>(t.y + i) * height - splat(A(0.5));
    const auto touches = (x > A(-1)) & (x < width) & (y > A(-1)) & (y < height);
    x = touches ? x : V{};
    y = touches ? y : V{};
    const I x0 = floor_to_int<A>(x), y0 = floor_to_int<A>(y);
    store_vector(t.x + i, x - __builtin_convertvector(x0, V));
    store_vector(t.y + i, y - __builtin_convertvector(y0, V));

    const I columns = load_vector<I>(t.columns + i);
    const I last_column = load_vector<I>(t.last_column + i);
    const I y_begin = load_vector<I>(t.y_begin + i), y_end = load_vector<I>(t.y_end + i);
    const I within = lane_mask<A>(touches);
    const I left = within & (x0 >= 0), right = within & (x0 < last_column);
    const I top = (y0 >= y_begin) & (y0 < y_end), bottom = (y0 + 1 >= y_begin) & (y0 + 1 < y_end);
    const I pixel = load_vector<I>(t.origin + i) + y0 * columns + x0;
    store_vector(t.pixel0 + i, pixel | ~(left & top));
    store_vector(t.pixel1 + i, (pixel + 1) | ~(right & top));
    store_vector(t.pixel2 + i, (pixel + columns) | ~(left & bottom));
    store_vector(t.pixel3 + i, (pixel + columns + 1) | ~(right & bottom));
  }
}

// location -> pixel0, the pixel trunc(location * size + 0.5) clamped to the border; none for a
// non-finite location. Clamped twice: as a number, so that the cast cannot overflow, and as an
// integer, for the last pixel of a side of 2^24 or more may be no float32.
template <class A>
void find_discrete_pixel(const Taps<A>& t, std::int64_t n) {
  const A* const __restrict x = t.x;
  const A* const __restrict y = t.y;
  const A* const __restrict width = t.width;
  const A* const __restrict height = t.height;
  const std::int32_t* const __restrict columns = t.columns;
  const std::int32_t* const __restrict last_column = t.last_column;
  const std::int32_t* const __restrict last_line = t.last_line;
  const std::int32_t* const __restrict y_begin = t.y_begin;
  const std::int32_t* const __restrict y_end = t.y_end;
  const std::int32_t* const __restrict origin = t.origin;
  std::int32_t* const __restrict pixel0 = t.pixel0;
  for (std::int64_t i = 0; i < n; ++i) {
    const bool finite = (x[i] - x[i] == A(0)) & (y[i] - y[i] == A(0));
    A px = x[i] * width[i] + A(0.5);
    A py = y[i] * height[i] + A(0.5);
    px = px > A(0) ? px : A(0);
    py = py > A(0) ? py : A(0);
    px = px < width[i] ? px : width[i];
    py = py < height[i] ? py : height[i];
    std::int32_t column = static_cast<std::int32_t>(px);
    std::int32_t line = static_cast<std::int32_t>(py);
    column = column < last_column[i] ? column : last_column[i];
    line = line < last_line[i] ? line : last_line[i];
    const bool mine = finite & (line >= y_begin[i]) & (line < y_end[i]);
    pixel0[i] = mine ? origin[i] + line * columns[i] + column : -1;
  }
}

// A masked pixel is a pixel that is not there. `first_pixel` is where the pixels of this block
// count from.
template <class A>
void drop_masked_pixels(const Taps<A>& t, std::int64_t n, const bool* mask, int corners) {
  for (int k = 0; k < corners; ++k) {
    std::int32_t* const pixel = t.pixels(k);
    for (std::int64_t i = 0; i < n; ++i) {
      if (pixel[i] >= 0 && !mask[pixel[i]]) pixel[i] = -1;
    }
  }
}

// attention * (bilinear weight of each corner)
template <class A>
void corner_weights(const Taps<A>& t, std::int64_t n, A* const weight[kCorners]) {
  using V = Vec<A>;
  for (std::int64_t i = 0; i < n; i += kLanes<A>) {
    const V x = load_vector<V>(t.x + i), y = load_vector<V>(t.y + i);
    const V attention = load_vector<V>(t.attention + i);
    const V lower = attention * y, upper = attention * (splat(A(1)) - y);
    store_vector(weight[0] + i, upper * (splat(A(1)) - x));
    store_vector(weight[1] + i, upper * x);
    store_vector(weight[2] + i, lower * (splat(A(1)) - x));
    store_vector(weight[3] + i, lower * x);
  }
}

}  // namespace
}  // namespace rtdetr_ops
