// SPDX-License-Identifier: Apache-2.0
// The contract between the operator and its kernels: sizes, strides and pointers, torch-free.
//
// B batch, Q queries, M heads, L levels, P_l points on level l, T = sum of P_l, D channels per
// head, S = sum of H*W.
#pragma once

#include <cstdint>

#include "common/dtype.h"

namespace rtdetr_ops {

constexpr int kCorners = 4;  // (x0, y0), (x0 + 1, y0), (x0, y0 + 1), (x0 + 1, y0 + 1)

struct Level {
  std::int64_t height;
  std::int64_t width;
  std::int64_t first_pixel;  // on the S axis
  std::int64_t first_tap;    // on the T axis
  std::int64_t points;
};

// [B, S, M, D], channels contiguous; strides in elements.
struct ValueView {
  const void* data;
  DType dtype;
  std::int64_t stride_b, stride_s, stride_m;
};

// [B, Q, M, T] or [B, Q, M, T, 2], everything after M contiguous; strides in elements.
struct TapsView {
  const void* data;
  DType dtype;
  std::int64_t stride_b, stride_q, stride_m;
};

// [B, Q, 1|L, 2|4] contiguous; absent in the unfused entry.
struct ReferenceView {
  const void* data;
  DType dtype;
  std::int64_t levels;  // 1 serves all levels
  std::int64_t coords;  // 2: x, y; 4: cx, cy, w, h
};

struct Problem {
  std::int64_t B, Q, M, L, T, D, S;
  const Level* levels;                // [L]
  const std::int64_t* device_levels;  // [L, 2] sizes that only the device can read, while those of
                                      // `levels` are 0; or null
  bool discrete;
  ValueView value;   // [B, S, M, D]
  const bool* mask;  // [B, S] contiguous, true keeps; or null
  bool fused;        // the next three are offsets, logits, reference; else locations, weights, none
  TapsView points_xy;       // [B, Q, M, T, 2]
  TapsView point_scores;    // [B, Q, M, T]
  ReferenceView reference;  // [B, Q, 1|L, 2|4]
  double offset_scale;
};

struct Forward {
  Problem problem;
  void* out;  // [B, Q, M, D] contiguous, dtype of value
};

// Outputs are contiguous, have the dtype of their input, and are null when nobody asked for them.
struct Backward {
  Problem problem;
  const void* grad_out;       // [B, Q, M, D] contiguous, dtype of value
  void* grad_value;           // [B, S, M, D]
  void* grad_points_xy;       // [B, Q, M, T, 2]
  void* grad_point_scores;    // [B, Q, M, T]
  void* grad_reference;       // [B, Q, 1|L, 2|4]
  void* head_grad_reference;  // [M, B, Q, 1|L, 2|4] the share of each head, compute type; null with
                              // grad_reference
};

}  // namespace rtdetr_ops
