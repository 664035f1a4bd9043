// SPDX-License-Identifier: Apache-2.0
// In the emulated build the CUDA kernels stand in for the CPU's: there is no choice among them.
#include "ms_deform_attn/cpu_kernels.h"

namespace rtdetr_ops {

const CpuKernels& cpu_kernels() {
  static const CpuKernels kNone = {.isa = "emulated CUDA",
                                   .query_tasks = nullptr,
                                   .forward = nullptr,
                                   .backward_taps = nullptr,
                                   .backward_reference = nullptr,
                                   .value_tasks = nullptr,
                                   .backward_value = nullptr};
  return kNone;
}

bool select_cpu_kernels(const char* isa) { return isa == nullptr; }

}  // namespace rtdetr_ops
