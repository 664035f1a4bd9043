// SPDX-License-Identifier: Apache-2.0
#include "ms_deform_attn/cuda_forward.cuh"
#include "ms_deform_attn/cuda_launch.cuh"

namespace rtdetr_ops {

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
    status =
        launch(forward_kernel<V, bytes()>, query_grid(args.problem, shape.log2_queries),
               shape.threads, Slots::bytes(shape.split) * (shape.threads / kWarp), context, args);
  });
  return status;
}

}  // namespace rtdetr_ops
