// SPDX-License-Identifier: Apache-2.0
// The operators on the CPU: the tasks of each pass, shared out to threads.
#include <atomic>

#include "common/scratch.h"
#include "ms_deform_attn/cpu_kernels.h"
#include "ms_deform_attn/op.h"

namespace rtdetr_ops {
namespace {

std::int64_t operations(const Problem& p) {
  return p.B * p.Q * p.M * p.T * p.D * (p.discrete ? 1 : kCorners);
}

// Tasks of a thread, at least: small work stays on the calling thread.
std::int64_t grain_size(std::int64_t tasks, std::int64_t operations) {
  constexpr std::int64_t kOperationsPerThread = 1 << 18;
  const std::int64_t threads = 1 + operations / kOperationsPerThread;
  return (tasks + threads - 1) / threads;
}

// Scratch memory that is not there is noted here: torch would make a code of an exception on its
// way out of parallel_for.
template <class Pass>
void share_out(const Tensor& value, std::int64_t tasks, std::int64_t operations, const Pass& pass) {
  std::atomic<std::int64_t> missing = 0;
  torch::stable::parallel_for(0, tasks, grain_size(tasks, operations),
                              [&](std::int64_t begin, std::int64_t end) {
                                try {
                                  pass(begin, end);
                                } catch (const OutOfMemory& error) {
                                  missing = error.bytes;
                                }
                              });
  if (missing > 0) fail_to_allocate(missing, TensorDevice(value));
}

struct Cpu {
  static constexpr bool kReadsSizes = true;

  static Tensor forward(const Call<kReadsSizes>& call) {
    const Problem& p = call.problem;
    Tensor out = allocate(call.value, {p.B, p.Q, p.M * p.D});
    const Forward args = {p, out.mutable_data_ptr()};
    const CpuKernels& kernels = cpu_kernels();
    const CpuPasses& passes = kernels.passes[static_cast<int>(p.value.dtype)];
    const std::int64_t tasks = kernels.query_tasks(p);
    share_out(call.value, tasks, operations(p),
              [&](std::int64_t begin, std::int64_t end) { passes.forward(args, begin, end); });
    return out;
  }

  // Always deterministic.
  static Gradients backward(const Call<kReadsSizes>& call, const Tensor& grad_out,
                            const Needs& needs, bool) {
    const Problem& p = call.problem;
    const Gradients grads = allocate_gradients(call, needs);
    const std::int64_t reference_stride = p.M * p.reference.levels * p.reference.coords;
    const Tensor head_grad_reference = allocate_bytes(
        call.value,
        needs.reference ? p.B * p.Q * reference_stride * std::int64_t{sizeof(double)} : 0);
    const Backward args =
        backward_arguments(p, grad_out, grads, needs, head_grad_reference.mutable_data_ptr());
    const CpuKernels& kernels = cpu_kernels();
    const CpuPasses& passes = kernels.passes[static_cast<int>(p.value.dtype)];
    if (needs.points_xy || needs.point_scores || needs.reference) {
      const std::int64_t tasks = kernels.query_tasks(p);
      share_out(call.value, tasks, operations(p), [&](std::int64_t begin, std::int64_t end) {
        passes.backward_taps(args, begin, end);
      });
    }
    if (needs.reference) {
      const std::int64_t tasks = p.B * p.Q;
      share_out(call.value, tasks, tasks * reference_stride,
                [&](std::int64_t begin, std::int64_t end) {
                  passes.backward_reference(args, begin, end);
                });
    }
    if (needs.value) {
      const std::int64_t threads = torch::stable::get_num_threads();
      const std::int64_t tasks = kernels.value_tasks(p, threads);
      share_out(call.value, tasks, operations(p) + p.B * p.S * p.M * p.D,
                [&](std::int64_t begin, std::int64_t end) {
                  passes.backward_value(args, threads, begin, end);
                });
    }
    return grads;
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(rtdetr_ops, CPU, library) { implement<Cpu>(library); }

}  // namespace rtdetr_ops
