// SPDX-License-Identifier: Apache-2.0
// From the arguments of either entry to the corners and weights of a tap, one tap per lane. A tap
// is one sampling point of one (b, q, m).
#pragma once

#include "ms_deform_attn/cuda_problem.cuh"

namespace rtdetr_ops {
namespace {

constexpr int kNowhere = -(1 << 30);  // the cell of a tap that touches no pixel

// The dtype is the same for all lanes: one branch, no divergence.
template <class A>
__device__ inline A load_number(const void* data, DType dtype, std::int64_t i) {
  switch (dtype) {
    case DType::kFloat64:
      return static_cast<A>(static_cast<const double*>(data)[i]);
    case DType::kFloat32:
      return static_cast<A>(static_cast<const float*>(data)[i]);
    case DType::kBFloat16:
      return static_cast<A>(widen(static_cast<const BFloat16*>(data)[i]));
    default:
      return static_cast<A>(widen(static_cast<const Float16*>(data)[i]));
  }
}

template <class A>
__device__ inline void store_number(void* data, DType dtype, std::int64_t i, A x) {
  switch (dtype) {
    case DType::kFloat64:
      static_cast<double*>(data)[i] = static_cast<double>(x);
      return;
    case DType::kFloat32:
      static_cast<float*>(data)[i] = Narrow<float>::from(x);
      return;
    case DType::kBFloat16:
      static_cast<BFloat16*>(data)[i] = Narrow<BFloat16>::from(x);
      return;
    default:
      static_cast<Float16*>(data)[i] = Narrow<Float16>::from(x);
  }
}

struct Index {
  int b, q, m;
};

__device__ inline std::int64_t offset_of(const TapsView& view, Index at) {
  return at.b * view.stride_b + at.q * view.stride_q + at.m * view.stride_m;
}

// Of [B, Q, M, ...], contiguous.
__device__ inline std::int64_t index_of_query(const KernelProblem& p, Index at) {
  return (static_cast<std::int64_t>(at.b) * p.Q + at.q) * p.M + at.m;
}

// Attention weights: those given, or the softmax of the logits of one (b, q, m).
template <class A>
struct Attention {
  A peak, scale;

  // All lanes of the team, whether or not they have a query.
  __device__ Attention(const KernelProblem& p, Index at, bool active, const Lanes& lanes,
                       Split split)
      : peak(0), scale(1) {
    if (!p.fused) return;
    const std::int64_t offset = offset_of(p.point_scores, at);
    const int taps = active ? p.T : 0, stride = 1 << split.team;
    A most = -static_cast<A>(INFINITY), sum = 0;
    for (int tap = lanes.rank; tap < taps; tap += stride) {
      const A logit = load_number<A>(p.point_scores.data, p.point_scores.dtype, offset + tap);
      most = logit > most ? logit : most;
    }
    peak = team_max(most, split);
    for (int tap = lanes.rank; tap < taps; tap += stride) {
      const A logit = load_number<A>(p.point_scores.data, p.point_scores.dtype, offset + tap);
      sum += exponential(logit - peak);
    }
    scale = A(1) / team_sum(sum, split);
  }

  __device__ A of(const KernelProblem& p, Index at, int tap) const {
    const A x = load_number<A>(p.point_scores.data, p.point_scores.dtype,
                               offset_of(p.point_scores, at) + tap);
    return p.fused ? exponential(x - peak) * scale : x;
  }
};

template <class A>
struct ReferencePoint {
  A x, y, w, h;

  __device__ ReferencePoint(const KernelProblem& p, Index at, int l) : w(0), h(0) {
    const ReferenceView& view = p.reference;
    const std::int64_t query = static_cast<std::int64_t>(at.b) * p.Q + at.q;
    const std::int64_t first = (query * view.levels + (view.levels == 1 ? 0 : l)) * view.coords;
    x = load_number<A>(view.data, view.dtype, first);
    y = load_number<A>(view.data, view.dtype, first + 1);
    if (view.coords == 4) {
      w = load_number<A>(view.data, view.dtype, first + 2);
      h = load_number<A>(view.data, view.dtype, first + 3);
    }
  }
};

template <class A>
struct Tap {
  int x0, y0;           // of corner 0 in the level; kNowhere for a tap that touches nothing
  int pixel[kCorners];  // on the S axis, -1 where there is none or the mask drops it
  A fx, fy;             // fraction inside the cell
  A attention;
  A width, height;   // of the level, rounded from 2^24 on in float32
  A step_x, step_y;  // d location / d offset

  // A lane without a tap.
  __device__ Tap()
      : x0(kNowhere),
        y0(kNowhere),
        pixel{-1, -1, -1, -1},
        fx(0),
        fy(0),
        attention(0),
        width(0),
        height(0),
        step_x(1),
        step_y(1) {}

  __device__ Tap(const KernelProblem& p, Index at, int tap, int l, const Attention<A>& softmax)
      : Tap() {
    const LevelSize size = level_size(p, l);
    width = static_cast<A>(size.width);
    height = static_cast<A>(size.height);
    attention = softmax.of(p, at, tap);
    const std::int64_t at_x = offset_of(p.points_xy, at) + 2 * tap;
    A x = load_number<A>(p.points_xy.data, p.points_xy.dtype, at_x);
    A y = load_number<A>(p.points_xy.data, p.points_xy.dtype, at_x + 1);
    if (p.fused) locate(p, at, l, x, y);
    p.discrete ? find_pixel(size, x, y) : find_cell(size, x, y);
    if (p.mask != nullptr) drop_masked(p.mask + static_cast<std::int64_t>(at.b) * p.S);
  }

  // Corner weights times attention.
  __device__ void weigh(A (&weight)[kCorners]) const {
    const A upper = attention * (A(1) - fy), lower = attention * fy;
    weight[0] = upper * (A(1) - fx);
    weight[1] = upper * fx;
    weight[2] = lower * (A(1) - fx);
    weight[3] = lower * fx;
  }

  __device__ bool touches() const { return x0 != kNowhere; }

 private:
  // Offsets in, locations out.
  __device__ void locate(const KernelProblem& p, Index at, int l, A& x, A& y) {
    const ReferencePoint<A> reference(p, at, l);
    if (p.reference.coords == 2) {
      step_x = A(1) / width;
      step_y = A(1) / height;
      x = reference.x + x / width;
      y = reference.y + y / height;
    } else {
      const A factor = static_cast<A>(p.levels[l].box_factor);
      step_x = reference.w * factor;
      step_y = reference.h * factor;
      x = reference.x + x * step_x;
      y = reference.y + y * step_y;
    }
  }

  // NaN compares false: a point that is not finite touches nothing, as one far outside. A number
  // below a rounded width is below the width too: no other number of its precision lies between.
  __device__ void find_cell(LevelSize size, A x, A y) {
    x = x * width - A(0.5);
    y = y * height - A(0.5);
    if (!(x > A(-1) && x < width && y > A(-1) && y < height)) return;
    const A left_x = floor(x), top_y = floor(y);
    fx = x - left_x;
    fy = y - top_y;
    x0 = static_cast<int>(left_x);
    y0 = static_cast<int>(top_y);
    const int corner = size.first_pixel + y0 * size.width + x0;
    const bool left = x0 >= 0, right = x0 + 1 < size.width;
    const bool top = y0 >= 0, bottom = y0 + 1 < size.height;
    pixel[0] = left && top ? corner : -1;
    pixel[1] = right && top ? corner + 1 : -1;
    pixel[2] = left && bottom ? corner + size.width : -1;
    pixel[3] = right && bottom ? corner + size.width + 1 : -1;
  }

  // Clamped twice: as a number, so that the cast cannot overflow, and as an integer, for the last
  // pixel of a side of 2^24 or more may be no float32.
  __device__ void find_pixel(LevelSize size, A x, A y) {
    if (!(x - x == A(0) && y - y == A(0))) return;
    x = x * width + A(0.5);
    y = y * height + A(0.5);
    x = x > A(0) ? x : A(0);
    y = y > A(0) ? y : A(0);
    x = x < width ? x : width;
    y = y < height ? y : height;
    if (size.fits == 0) return;
    x0 = min(static_cast<int>(x), size.width - 1);
    y0 = min(static_cast<int>(y), size.height - 1);
    pixel[0] = size.first_pixel + y0 * size.width + x0;
  }

  __device__ void drop_masked(const bool* mask) {
#pragma unroll
    for (int c = 0; c < kCorners; ++c) {
      if (pixel[c] >= 0 && !mask[pixel[c]]) pixel[c] = -1;
    }
  }
};

template <class A>
struct alignas(16) Quad {
  A of[kCorners];
};

// What a warp keeps of 32 taps in shared memory. Teams are one slot apart, so that reading a tap of
// each does not meet the same banks.
template <class A>
struct WarpTaps {
  int4* pixels;
  Quad<A>* weights;

  __host__ __device__ static int slots(Split split) { return kWarp + (kWarp >> split.team); }
  __host__ __device__ static int bytes(Split split) {
    return slots(split) * static_cast<int>(sizeof(int4) + sizeof(Quad<A>));
  }

  __device__ WarpTaps(char* memory, Split split)
      : pixels(reinterpret_cast<int4*>(memory)),
        weights(reinterpret_cast<Quad<A>*>(pixels + slots(split))) {}

  __device__ static int slot(int lane, Split split) { return lane + (lane >> split.team); }

  __device__ void put(int slot, const Tap<A>& tap) const {
    pixels[slot] = make_int4(tap.pixel[0], tap.pixel[1], tap.pixel[2], tap.pixel[3]);
    Quad<A> weight;
    tap.weigh(weight.of);
    weights[slot] = weight;
  }
};

// A table of sizes on the device that does not fit shows as NaN: checking it would mean waiting.
template <class A>
__device__ inline A start_of_sum(const KernelProblem& p) {
  const bool fits = p.L == 0 || level_size(p, 0).fits != 0;
  return fits ? A(0) : static_cast<A>(NAN);
}

}  // namespace
}  // namespace rtdetr_ops
