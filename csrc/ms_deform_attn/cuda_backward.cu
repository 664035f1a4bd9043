// SPDX-License-Identifier: Apache-2.0
// Backward of the taps by sums within a group of lanes, and the launches of a backward call. The
// gradient of value leaves the kernel as reductions in memory, or, where it must be deterministic,
// as a record of each tap.
#include "ms_deform_attn/cuda_backward_deterministic.cuh"
#include "ms_deform_attn/cuda_launch.cuh"
#include "ms_deform_attn/cuda_pixels.cuh"
#include "ms_deform_attn/cuda_reductions.cuh"

namespace rtdetr_ops {
namespace {

struct BackwardArgs {
  KernelProblem problem;
  Split split;           // a group has kCorners lanes or more
  int log2_queries;      // of a block, exponent
  const void* grad_out;  // [B, Q, M, D]
  // Each of the next may be null. The gradient of value goes into `sums`, [B, S, M, D] of the
  // compute type, or into records.
  void* sums;
  TapRecords records;
  void* grad_points_xy;
  void* grad_point_scores;
  void* head_grad_reference;  // [M, B, Q, 1|L, 2|4]

  __host__ __device__ bool needs_dots() const {
    return grad_points_xy != nullptr || grad_point_scores != nullptr ||
           head_grad_reference != nullptr;
  }
};

// What a warp keeps in shared memory: its taps, their dots <grad_out, corner pixel>, and, in the
// fused entry, the gradients of all taps of its teams.
template <class A>
struct WarpGradients {
  WarpTaps<A> taps;
  Quad<A>* dots;
  A* attention;  // [T] of a team; then x and y if the reference need them
  int T;

  __host__ __device__ static int team_numbers(const BackwardArgs& args) {
    const KernelProblem& p = args.problem;
    return p.fused && args.needs_dots() ? (args.head_grad_reference != nullptr ? 3 : 1) * p.T : 0;
  }

  __host__ __device__ static int bytes(const BackwardArgs& args) {
    const int teams = kWarp >> args.split.team;
    const int numbers = teams * team_numbers(args) * static_cast<int>(sizeof(A));
    return WarpTaps<A>::bytes(args.split) +
           WarpTaps<A>::slots(args.split) * static_cast<int>(sizeof(Quad<A>)) +
           (numbers + 15) / 16 * 16;
  }

  __device__ WarpGradients(char* memory, const BackwardArgs& args, const Lanes& lanes)
      : taps(memory, args.split),
        dots(reinterpret_cast<Quad<A>*>(memory + WarpTaps<A>::bytes(args.split))),
        attention(reinterpret_cast<A*>(dots + WarpTaps<A>::slots(args.split)) +
                  (lanes.lane >> args.split.team) * team_numbers(args)),
        T(args.problem.T) {}

  __device__ A* x() const { return attention + T; }
  __device__ A* y() const { return attention + 2 * T; }
};

// Which of its channels a lane takes as number i, when the lanes of a group take kWidth
// neighbors each in turn.
template <int kWidth>
__device__ inline int channel_of(int channel_rank, Split split, int i) {
  return ((i / kWidth << split.group) + channel_rank) * kWidth + i % kWidth;
}

// Sums each of the four over the lanes of a group: lane c of the group returns that of dots[c]. The
// first two steps halve what a lane holds, where adding all four everywhere would take four
// exchanges per step.
template <class A>
__device__ inline A reduce_dots(const A (&dots)[kCorners], int channel_rank, Split split) {
  const bool odd = (channel_rank & 1) != 0, upper = (channel_rank & 2) != 0;
  A first = upper ? dots[2] : dots[0], second = upper ? dots[3] : dots[1];
  first += __shfl_xor_sync(~0u, upper ? dots[0] : dots[2], 2);
  second += __shfl_xor_sync(~0u, upper ? dots[1] : dots[3], 2);
  A dot = odd ? second : first;
  dot += __shfl_xor_sync(~0u, odd ? first : second, 1);
  for (int mask = kCorners; mask < 1 << split.group; mask <<= 1) {
    dot += __shfl_xor_sync(~0u, dot, mask);
  }
  return dot;
}

// A slab of channels of grad_out[b, q, m], in the order in which value is gathered and in the one
// in which its gradient is scattered.
template <class V, int kBytes>
struct GradVector {
  using A = Compute<V>;
  static constexpr int kChannels = Pack<V, kBytes>::kChannels;
  static constexpr int kWidth =
      ReductionWidth<A>::value < kChannels ? ReductionWidth<A>::value : kChannels;
  A gathered[kChannels], scattered[kChannels];

  __device__ GradVector(const BackwardArgs& args, Index at, bool active, const Lanes& lanes,
                        int slab) {
    const KernelProblem& p = args.problem;
    const V* const vector = static_cast<const V*>(args.grad_out) + index_of_query(p, at) * p.D;
    const int channel = slab + lanes.channel_rank * kChannels;
    const bool present = active && channel < p.D;
    Pack<V, kBytes>::load_pixel(reinterpret_cast<const char*>(vector + channel), present ? 0 : -1,
                                0)
        .unpack(gathered);
#pragma unroll
    for (int i = 0; i < kChannels; ++i) {
      const int scatter = slab + channel_of<kWidth>(lanes.channel_rank, args.split, i);
      if constexpr (kWidth == kChannels) {
        scattered[i] = gathered[i];
      } else {
        scattered[i] =
            active && args.sums != nullptr && scatter < p.D ? widen(vector[scatter]) : A(0);
      }
    }
  }
};

// One tap of each group: its dots are added to `dot`, of which a lane keeps one, and its share of
// the gradient of value to `sums`.
template <int kUsed, class V, int kBytes>
__device__ inline Compute<V> visit_tap(const BackwardArgs& args, Index at,
                                       const GradVector<V, kBytes>& grad, const HeadPixels<V>& head,
                                       const Lanes& lanes, int slab, int4 pixels,
                                       const Quad<Compute<V>>& weight) {
  using A = Compute<V>;
  using Grad = GradVector<V, kBytes>;
  const KernelProblem& p = args.problem;
  A dot = 0;
  if (args.needs_dots()) {
    const bool present = slab + lanes.channel_rank * Grad::kChannels < p.D;
    const CornerPixels<V, kBytes, kUsed> corners(head,
                                                 present ? pixels : make_int4(-1, -1, -1, -1));
    A dots[kCorners] = {};
    corners.dot_with(grad.gathered, dots);
    dot = reduce_dots(dots, lanes.channel_rank, args.split);
  }
  if (args.sums != nullptr) {
    const int pixel[kCorners] = {pixels.x, pixels.y, pixels.z, pixels.w};
    A* const image = static_cast<A*>(args.sums) + static_cast<std::int64_t>(at.b) * p.S * p.M * p.D;
#pragma unroll
    for (int c = 0; c < kUsed; ++c) {
      if (pixel[c] < 0) continue;
      A* const vector = image + (static_cast<std::int64_t>(pixel[c]) * p.M + at.m) * p.D;
#pragma unroll
      for (int i = 0; i < Grad::kChannels; i += Grad::kWidth) {
        const int channel = slab + channel_of<Grad::kWidth>(lanes.channel_rank, args.split, i);
        A product[Grad::kWidth];
#pragma unroll
        for (int k = 0; k < Grad::kWidth; ++k) product[k] = weight.of[c] * grad.scattered[i + k];
        if (channel < p.D) Reduce<Grad::kWidth>::add(vector + channel, product);
      }
    }
  }
  return dot;
}

// A point that touches nothing has slope 0, also where the other factor is not finite.
template <class A>
__device__ inline A chain(A slope, A factor) {
  return slope == A(0) ? A(0) : slope * factor;
}

template <class A>
struct TapGradient {
  A x, y;  // of the location
  A attention;

  __device__ TapGradient(const KernelProblem& p, const Tap<A>& tap, const Quad<A>& dots)
      : x(0), y(0), attention(dots.of[0]) {
    if (p.discrete) return;  // a discrete pixel does not move with the location
    const A d0 = dots.of[0], d1 = dots.of[1], d2 = dots.of[2], d3 = dots.of[3];
    const A fx = tap.fx, fy = tap.fy, gx = A(1) - fx, gy = A(1) - fy;
    attention = gy * (gx * d0 + fx * d1) + fy * (gx * d2 + fx * d3);
    if (!tap.touches()) return;
    x = tap.attention * tap.width * (gy * (d1 - d0) + fy * (d3 - d2));
    y = tap.attention * tap.height * (gx * (d2 - d0) + fx * (d3 - d1));
  }
};

// Writes the gradients of a tap, or keeps what waits for the sum over all taps.
template <class A>
__device__ inline void finish_tap(const BackwardArgs& args, Index at, int tap_index,
                                  const Tap<A>& tap, const TapGradient<A>& grad,
                                  const WarpGradients<A>& memory) {
  const KernelProblem& p = args.problem;
  const std::int64_t out = index_of_query(p, at) * p.T + tap_index;
  if (args.grad_points_xy != nullptr) {
    const DType dtype = p.points_xy.dtype;
    store_number(args.grad_points_xy, dtype, 2 * out, p.fused ? chain(grad.x, tap.step_x) : grad.x);
    store_number(args.grad_points_xy, dtype, 2 * out + 1,
                 p.fused ? chain(grad.y, tap.step_y) : grad.y);
  }
  if (!p.fused) {
    if (args.grad_point_scores != nullptr) {
      store_number(args.grad_point_scores, p.point_scores.dtype, out, grad.attention);
    }
    return;
  }
  memory.attention[tap_index] = grad.attention;
  if (args.head_grad_reference != nullptr) {
    memory.x()[tap_index] = grad.x;
    memory.y()[tap_index] = grad.y;
  }
}

// Gradient of the logits: attention * (its gradient - mean), the mean over all taps.
template <class A>
__device__ inline void finish_logits(const BackwardArgs& args, Index at, const Lanes& lanes,
                                     const Attention<A>& attention, A mean,
                                     const WarpGradients<A>& memory) {
  const KernelProblem& p = args.problem;
  for (int tap = lanes.rank; tap < p.T; tap += 1 << args.split.team) {
    const A grad = attention.of(p, at, tap) * (memory.attention[tap] - mean);
    store_number(args.grad_point_scores, p.point_scores.dtype, index_of_query(p, at) * p.T + tap,
                 grad);
  }
}

// The share of this head in the gradient of the reference: each lane sums taps, in their order,
// into the coordinates that are its own.
template <class A>
__device__ inline void finish_reference(const BackwardArgs& args, Index at, const Lanes& lanes,
                                        const WarpGradients<A>& memory) {
  const KernelProblem& p = args.problem;
  const int coords = static_cast<int>(p.reference.coords);
  const int numbers = static_cast<int>(p.reference.levels) * coords;
  const std::int64_t query = (static_cast<std::int64_t>(at.m) * p.B + at.b) * p.Q + at.q;
  A* const share = static_cast<A*>(args.head_grad_reference) + query * numbers;
  for (int number = lanes.rank; number < numbers; number += 1 << args.split.team) {
    const int coordinate = number % coords, axis = coordinate % 2;
    const A* const grads = axis == 0 ? memory.x() : memory.y();
    A sum = 0;
    for (int l = 0; l < p.L; ++l) {
      const LevelEntry& level = p.levels[l];
      if (p.reference.levels != 1 && l != number / coords) continue;
      for (int tap = level.first_tap; tap < level.first_tap + level.points; ++tap) {
        A factor = 1;
        if (coordinate >= 2) {
          const std::int64_t offset = offset_of(p.points_xy, at) + 2 * tap + axis;
          factor = load_number<A>(p.points_xy.data, p.points_xy.dtype, offset) *
                   static_cast<A>(level.box_factor);
        }
        sum += chain(grads[tap], factor);
      }
    }
    share[number] = sum;
  }
}

template <class V, int kBytes>
__global__ void __launch_bounds__(256, 2)
    backward_kernel(const __grid_constant__ BackwardArgs args) {
  using A = Compute<V>;
  using Slots = WarpTaps<A>;
  const KernelProblem& p = args.problem;
  const Split split = args.split;
  const Lanes lanes(split);
  const WarpGradients<A> memory(
      shared_memory() + threadIdx.x / kWarp * WarpGradients<A>::bytes(args), args, lanes);
  const int query = query_of(p, args.log2_queries, static_cast<int>(blockIdx.x), lanes.team);
  const bool active = query >= 0;
  const int team = 1 << split.team, slab_size = GradVector<V, kBytes>::kChannels << split.group;
  const int my_slot = Slots::slot(lanes.lane, split);
  const int team_slot = Slots::slot(lanes.lane - lanes.rank, split);
  Index at = {0, active ? query : 0, static_cast<int>(blockIdx.y)};
  for (at.b = static_cast<int>(blockIdx.z); at.b < p.B; at.b += static_cast<int>(gridDim.z)) {
    const Attention<A> attention(p, at, active, lanes, split);
    A mean = 0;
    for (int first = 0; first < p.T; first += team) {
      const int mine = first + lanes.rank, count = min(p.T - first, team);
      const bool has_tap = active && mine < p.T;
      const int level = has_tap ? level_of_tap(p, mine) : 0;
      const Tap<A> tap = has_tap ? Tap<A>(p, at, mine, level, attention) : Tap<A>();
      memory.taps.put(my_slot, tap);
      memory.dots[my_slot] = Quad<A>{};
      if (has_tap && args.records.cells != nullptr) {
        args.records.put(p, at, mine, level, tap);
      }
      __syncwarp();
      for (int slab = 0; slab < p.D; slab += slab_size) {
        const GradVector<V, kBytes> grad(args, at, active, lanes, slab);
        const HeadPixels<V> head(p, at,
                                 slab + lanes.channel_rank * GradVector<V, kBytes>::kChannels);
        for (int turn = 0; turn < count; turn += lanes.slices) {
          const int i = turn + lanes.slice;
          const bool present = i < count;
          const int slot = team_slot + (present ? i : 0);
          const int4 pixels = present ? memory.taps.pixels[slot] : make_int4(-1, -1, -1, -1);
          const Quad<A> weight = memory.taps.weights[slot];
          const A dot = p.discrete ? visit_tap<1, V, kBytes>(args, at, grad, head, lanes, slab,
                                                             pixels, weight)
                                   : visit_tap<kCorners, V, kBytes>(args, at, grad, head, lanes,
                                                                    slab, pixels, weight);
          if (present && lanes.channel_rank < kCorners) {
            memory.dots[slot].of[lanes.channel_rank] += dot;
          }
        }
      }
      __syncwarp();
      if (has_tap && args.needs_dots()) {
        const TapGradient<A> grad(p, tap, memory.dots[my_slot]);
        mean += tap.attention * grad.attention;
        finish_tap(args, at, mine, tap, grad, memory);
      }
      __syncwarp();
    }
    if (!p.fused || !args.needs_dots()) continue;
    mean = team_sum(mean, split);
    if (active && args.grad_point_scores != nullptr) {
      finish_logits(args, at, lanes, attention, mean, memory);
    }
    if (active && args.head_grad_reference != nullptr) finish_reference(args, at, lanes, memory);
  }
}

// How the gradient of value is computed, and the memory of a backward call.
struct Plan {
  bool deterministic_value;
  LevelSize* sizes;
  void* sums;
  TapRecords records;
  std::size_t bytes;

  Plan(const Backward& backward, bool deterministic, void* memory) {
    const Problem& p = backward.problem;
    const bool needs_value = backward.grad_value != nullptr;
    deterministic_value = needs_value && deterministic;
    Workspace workspace(memory);
    sizes = take_level_sizes(p, workspace);
    sums = !needs_value || deterministic_value ? nullptr
           : element_bytes(p.value.dtype) == 2 ? workspace.take<float>(p.B * p.S * p.M * p.D)
                                               : backward.grad_value;
    records = take_records(p, workspace);
    bytes = workspace.bytes();
  }

 private:
  TapRecords take_records(const Problem& p, Workspace& workspace) const {
    if (!deterministic_value) return {nullptr, nullptr};
    const std::int64_t taps = p.B * p.M * p.Q * p.T;
    int2* const cells = workspace.take<int2>(taps);
    void* const weights = p.value.dtype == DType::kFloat64
                              ? static_cast<void*>(workspace.take<double>(3 * taps))
                              : static_cast<void*>(workspace.take<float>(3 * taps));
    return {cells, weights};
  }
};

Status clear_sums(const Backward& backward, const Plan& plan, const CudaContext& context) {
  const Problem& p = backward.problem;
  const auto stream = static_cast<cudaStream_t>(context.stream);
  const auto numbers = static_cast<std::size_t>(p.B * p.S * p.M * p.D);
  const auto bytes = static_cast<std::size_t>(element_bytes(p.value.dtype));
  if (numbers == 0) return Status();
  if (plan.sums != nullptr) {
    return status_of(
        cudaMemsetAsync(plan.sums, 0, numbers * std::max<std::size_t>(bytes, 4), stream));
  }
  // Sizes that turn out not to fit leave pixels that belong to no tile.
  const bool loose = backward.grad_value != nullptr && p.device_levels != nullptr;
  if (!loose) return Status();
  return status_of(cudaMemsetAsync(backward.grad_value, 0, numbers * bytes, stream));
}

template <class V, int kBytes>
Status launch_taps(const Backward& backward, const Plan& plan, const KernelProblem& problem,
                   const CudaContext& context) {
  using A = Compute<V>;
  BackwardArgs args = {};
  args.problem = problem;
  args.grad_out = backward.grad_out;
  args.sums = plan.sums;
  args.records = plan.records;
  args.grad_points_xy = backward.grad_points_xy;
  args.grad_point_scores = backward.grad_point_scores;
  args.head_grad_reference = backward.head_grad_reference;
  Shape shape = choose_shape(problem, Pack<V, kBytes>::kChannels, 2);
  const auto warp_bytes = [&](Split split) {
    args.split = split;
    return WarpGradients<A>::bytes(args);
  };
  if (!fit_shared_memory(shape, warp_bytes)) {
    return Status("logits: T is beyond what the shared memory of the CUDA kernels holds");
  }
  const int bytes = warp_bytes(shape.split) * (shape.threads / kWarp);
  args.log2_queries = shape.log2_queries;
  const cudaLaunchConfig_t config =
      launch_config(query_grid(problem, shape.log2_queries), shape.threads, bytes, context);
  return status_of(cudaLaunchKernelEx(&config, backward_kernel<V, kBytes>, args));
}

// A guess where the sizes of levels are unknown, and the kernel loops over what is beyond it.
std::int64_t tile_count(const KernelProblem& p) {
  if (p.device_levels != nullptr) return p.S / (1 << Tiles::kMostPixels) + p.L;
  std::int64_t count = 0;
  for (int l = 0; l < p.L; ++l) {
    const LevelSize size = p.levels[l].size;
    const Patch patch = Tiles::of(p, size, p.levels[l].points);
    count +=
        static_cast<std::int64_t>(patch.tiles_down(size.height)) * patch.tiles_across(size.width);
  }
  return count;
}

template <class V>
Status launch_deterministic_value(const Backward& backward, const Plan& plan,
                                  const KernelProblem& p, const CudaContext& context) {
  const DeterministicArgs args = {p, plan.records, backward.grad_out, backward.grad_value};
  const std::int64_t blocks = (tile_count(p) + Tiles::kWarps - 1) / Tiles::kWarps;
  if (blocks == 0) return Status();
  const std::int64_t slabs = (p.D + kWarp - 1) / kWarp;
  const dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>(p.M * slabs),
                  image_blocks(p));
  const int bytes = TileMemory::bytes<Compute<V>>();
  const cudaLaunchConfig_t config = launch_config(grid, Tiles::kWarps * kWarp, bytes, context);
  return status_of(cudaLaunchKernelEx(&config, deterministic_value_kernel<V>, args));
}

template <class V>
Status launch_rounding(const Backward& backward, const Plan& plan, const KernelProblem& p,
                       const CudaContext& context) {
  const std::int64_t numbers = static_cast<std::int64_t>(p.B) * p.S * p.M * p.D;
  const RoundArgs args = {static_cast<const float*>(plan.sums), backward.grad_value, numbers};
  if (numbers == 0) return Status();
  const cudaLaunchConfig_t config = launch_config(dim3(block_number(numbers)), 256, 0, context);
  return status_of(cudaLaunchKernelEx(&config, round_kernel<V>, args));
}

template <class A>
Status launch_head_sum(const Backward& backward, const CudaContext& context) {
  const Problem& p = backward.problem;
  const std::int64_t size = p.B * p.Q * p.reference.levels * p.reference.coords;
  const SumHeadsArgs args = {backward.head_grad_reference, static_cast<int>(p.M), size,
                             backward.grad_reference, p.reference.dtype};
  const cudaLaunchConfig_t config = launch_config(dim3(block_number(size)), 256, 0, context);
  return status_of(cudaLaunchKernelEx(&config, sum_heads_kernel<A>, args));
}

template <class V, int kBytes>
Status launch_all(const Backward& backward, const Plan& plan, const CudaContext& context) {
  const Problem& p = backward.problem;
  const KernelProblem problem = kernel_problem(p, plan.sizes);
  if (p.B == 0) return Status();
  Status status = clear_sums(backward, plan, context);
  if (status.failed()) return status;
  status = read_level_sizes(p, plan.sizes, context);
  if (status.failed()) return status;
  if (p.Q > 0) {
    status = launch_taps<V, kBytes>(backward, plan, problem, context);
    if (status.failed()) return status;
  }
  if (plan.deterministic_value) {
    status = launch_deterministic_value<V>(backward, plan, problem, context);
    if (status.failed()) return status;
  }
  if constexpr (sizeof(V) == 2) {
    if (plan.sums != nullptr) status = launch_rounding<V>(backward, plan, problem, context);
    if (status.failed()) return status;
  }
  if (backward.grad_reference == nullptr || p.Q == 0) return Status();
  return launch_head_sum<Compute<V>>(backward, context);
}

}  // namespace

std::size_t backward_workspace(const Backward& backward, bool deterministic) {
  return Plan(backward, deterministic, nullptr).bytes;
}

Status launch_backward(const Backward& backward, const CudaContext& context) {
  const Problem& p = backward.problem;
  if (const Status status = check_limits(p); status.failed()) return status;
  const Plan plan(backward, context.deterministic, context.workspace);
  Status status;
  with_loads(p, backward.grad_out, [&](auto v, auto bytes) {
    status = launch_all<decltype(v), bytes()>(backward, plan, context);
  });
  return status;
}

}  // namespace rtdetr_ops
