// SPDX-License-Identifier: Apache-2.0
// Forward: out[b, q, m] = sum over taps and corners of weight * pixel. The kernel, then its launch.
#include "ms_deform_attn/cuda_launch.cuh"
#include "ms_deform_attn/cuda_pixels.cuh"

namespace rtdetr_ops {
namespace {

struct ForwardArgs {
  KernelProblem problem;
  Split split;
  int log2_queries;  // of a block, exponent
  void* out;         // [B, Q, M, D]
};

// sum += weight * pixel over taps begin, begin + step, ... of the warp's taps, two at a time: eight
// loads are under way before the first is used.
template <class V, int kBytes, int kUsed>
__device__ inline void gather(const WarpTaps<Compute<V>>& taps, const HeadPixels<V>& head,
                              int begin, int end, int step,
                              Compute<V> (&sum)[Pack<V, kBytes>::kChannels]) {
  using Pixels = CornerPixels<V, kBytes, kUsed>;
  int i = begin;
  for (; i + step < end; i += 2 * step) {
    const Pixels one(head, taps.pixels[i]), two(head, taps.pixels[i + step]);
    one.add_to(sum, taps.weights[i]);
    two.add_to(sum, taps.weights[i + step]);
  }
  if (i < end) Pixels(head, taps.pixels[i]).add_to(sum, taps.weights[i]);
}

template <class A, int kChannels>
__device__ inline void add_slices(A (&sum)[kChannels], Split split) {
#pragma unroll
  for (int i = 0; i < kChannels; ++i) {
    for (int mask = 1 << split.group; mask < 1 << split.team; mask <<= 1) {
      sum[i] += __shfl_xor_sync(~0u, sum[i], mask);
    }
  }
}

// 80 registers: eight pixels under way and 24 warps on a multiprocessor.
template <class V, int kBytes>
__global__ void __launch_bounds__(256, 3) forward_kernel(const __grid_constant__ ForwardArgs args) {
  using A = Compute<V>;
  using Slots = WarpTaps<A>;
  constexpr int kChannels = Pack<V, kBytes>::kChannels;
  const KernelProblem& p = args.problem;
  const Split split = args.split;
  const Lanes lanes(split);
  const Slots taps(shared_memory() + threadIdx.x / kWarp * Slots::bytes(split), split);
  const int query = query_of(p, args.log2_queries, static_cast<int>(blockIdx.x), lanes.team);
  const bool active = query >= 0;
  const int team = 1 << split.team, slab_size = kChannels << split.group;
  const int my_slot = Slots::slot(lanes.lane, split);
  const int team_slot = Slots::slot(lanes.lane - lanes.rank, split);
  Index at = {0, active ? query : 0, static_cast<int>(blockIdx.y)};
  for (at.b = static_cast<int>(blockIdx.z); at.b < p.B; at.b += static_cast<int>(gridDim.z)) {
    const Attention<A> attention(p, at, active, lanes, split);
    for (int slab = 0; slab < p.D; slab += slab_size) {
      const int channel = slab + lanes.channel_rank * kChannels;
      // A lane beyond the last channel works on channel 0 and keeps the result to itself.
      const HeadPixels<V> head(p, at, channel < p.D ? channel : 0);
      A sum[kChannels];
#pragma unroll
      for (int i = 0; i < kChannels; ++i) sum[i] = start_of_sum<A>(p);
      for (int first = 0; first < p.T; first += team) {
        const int mine = first + lanes.rank;
        const bool has_tap = active && mine < p.T;
        taps.put(my_slot,
                 has_tap ? Tap<A>(p, at, mine, level_of_tap(p, mine), attention) : Tap<A>());
        __syncwarp();
        const int begin = team_slot + lanes.slice, end = team_slot + min(p.T - first, team);
        p.discrete ? gather<V, kBytes, 1>(taps, head, begin, end, lanes.slices, sum)
                   : gather<V, kBytes, kCorners>(taps, head, begin, end, lanes.slices, sum);
        __syncwarp();
      }
      add_slices(sum, split);
      if (active && lanes.slice == 0 && channel < p.D) {
        V* const out = static_cast<V*>(args.out) + index_of_query(p, at) * p.D + channel;
        Pack<V, kBytes>::store(out, sum);
      }
    }
  }
}

}  // namespace

std::size_t forward_workspace(const Problem& p) {
  Workspace workspace(nullptr);
  take_level_sizes(p, workspace);
  return workspace.bytes();
}

Status launch_forward(const Forward& forward, const CudaContext& context) {
  const Problem& p = forward.problem;
  if (const Status status = check_limits(p); status.failed()) return status;
  if (p.B == 0 || p.Q == 0) return Status();
  Workspace workspace(context.workspace);
  LevelSize* const sizes = take_level_sizes(p, workspace);
  Status status = read_level_sizes(p, sizes, context);
  if (status.failed()) return status;
  with_loads(p, forward.out, [&](auto v, auto bytes) {
    using V = decltype(v);
    using Slots = WarpTaps<Compute<V>>;
    ForwardArgs args = {kernel_problem(p, sizes), {}, 0, forward.out};
    Shape shape = choose_shape(args.problem, Pack<V, bytes()>::kChannels, 0);
    fit_shared_memory(shape, [](Split split) { return Slots::bytes(split); });
    args.split = shape.split;
    args.log2_queries = shape.log2_queries;
    const cudaLaunchConfig_t config =
        launch_config(query_grid(args.problem, shape.log2_queries), shape.threads,
                      Slots::bytes(shape.split) * (shape.threads / kWarp), context);
    status = status_of(cudaLaunchKernelEx(&config, forward_kernel<V, bytes()>, args));
  });
  return status;
}

}  // namespace rtdetr_ops
