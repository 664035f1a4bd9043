// SPDX-License-Identifier: Apache-2.0
// The operators on the CPU: the loops over tasks.
#include <algorithm>
#include <memory>

#include "ms_deform_attn/cpu_kernels.h"
#include "ms_deform_attn/op.h"

namespace rtdetr_ops {
namespace {

// Shares tasks out one by one; `pass(begin, end)` must not care how. Small work stays on the
// calling thread.
template <class Pass>
void run_tasks(std::int64_t tasks, std::int64_t operations, const Pass& pass) {
  constexpr std::int64_t kOperationsPerThread = 1 << 18;
  const std::int64_t threads =
      std::min({static_cast<std::int64_t>(torch::stable::get_num_threads()), tasks,
                1 + operations / kOperationsPerThread});
  if (threads <= 1) {
    if (tasks > 0) pass(0, tasks);
    return;
  }
  torch::stable::parallel_for(0, threads, 1, [&](std::int64_t begin, std::int64_t end) {
    pass(tasks * begin / threads, tasks * end / threads);
  });
}

std::int64_t operations(const Problem& p) {
  return p.B * p.Q * p.M * p.T * p.D * (p.discrete ? 1 : kCorners);
}

struct Cpu {
  static constexpr bool kReadsSizes = true;

  static Tensor forward(const Call<kReadsSizes>& call) {
    const Problem& p = call.problem;
    Tensor out = allocate(call.value, {p.B, p.Q, p.M * p.D});
    const Forward args = {p, out.mutable_data_ptr()};
    const CpuKernels& kernels = cpu_kernels();
    run_tasks(kernels.query_tasks(p), operations(p),
              [&](std::int64_t begin, std::int64_t end) { kernels.forward(args, begin, end); });
    return out;
  }

  // Always deterministic.
  static Gradients backward(const Call<kReadsSizes>& call, const Tensor& grad_out,
                            const Needs& needs, bool) {
    const Problem& p = call.problem;
    const Gradients grads = allocate_gradients(call, needs);
    const std::int64_t reference_stride = p.M * p.reference.levels * p.reference.coords;
    const auto head_grad_reference = std::make_unique_for_overwrite<double[]>(
        needs.reference ? p.B * p.Q * reference_stride : 0);
    const Backward args = backward_arguments(p, grad_out, grads, needs, head_grad_reference.get());
    const CpuKernels& kernels = cpu_kernels();
    if (needs.points_xy || needs.point_scores || needs.reference) {
      run_tasks(kernels.query_tasks(p), operations(p), [&](std::int64_t begin, std::int64_t end) {
        kernels.backward_taps(args, begin, end);
      });
    }
    if (needs.reference) {
      run_tasks(p.B * p.Q, p.B * p.Q * reference_stride, [&](std::int64_t begin, std::int64_t end) {
        kernels.backward_reference(args, begin, end);
      });
    }
    if (needs.value) {
      const std::int64_t threads = torch::stable::get_num_threads();
      run_tasks(kernels.value_tasks(p, threads), operations(p) + p.B * p.S * p.M * p.D,
                [&](std::int64_t begin, std::int64_t end) {
                  kernels.backward_value(args, threads, begin, end);
                });
    }
    return grads;
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(rtdetr_ops, CPU, library) { implement<Cpu>(library); }

}  // namespace rtdetr_ops
