// SPDX-License-Identifier: Apache-2.0
#include "ms_deform_attn/cuda_backward.cuh"
#include "ms_deform_attn/cuda_launch.cuh"
#include "ms_deform_attn/cuda_reductions.cuh"

namespace rtdetr_ops {
namespace {

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
  return launch(backward_kernel<V, kBytes>, query_grid(problem, shape.log2_queries), shape.threads,
                bytes, context, args);
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
  return launch(deterministic_value_kernel<V>, grid, Tiles::kWarps * kWarp, bytes, context, args);
}

template <class V>
Status launch_rounding(const Backward& backward, const Plan& plan, const KernelProblem& p,
                       const CudaContext& context) {
  const std::int64_t numbers = static_cast<std::int64_t>(p.B) * p.S * p.M * p.D;
  const RoundArgs args = {static_cast<const float*>(plan.sums), backward.grad_value, numbers};
  if (numbers == 0) return Status();
  return launch(round_kernel<V>, dim3(block_number(numbers)), 256, 0, context, args);
}

template <class A>
Status launch_head_sum(const Backward& backward, const CudaContext& context) {
  const Problem& p = backward.problem;
  const std::int64_t size = p.B * p.Q * p.reference.levels * p.reference.coords;
  const SumHeadsArgs args = {backward.head_grad_reference, static_cast<int>(p.M), size,
                             backward.grad_reference, p.reference.dtype};
  return launch(sum_heads_kernel<A>, dim3(block_number(size)), 256, 0, context, args);
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
