// SPDX-License-Identifier: Apache-2.0
// In the emulated build the CUDA kernels stand in for the CPU's: there is no choice among them.
#include "ms_deform_attn/cpu_kernels.h"

namespace rtdetr_ops {

const CpuKernels& cpu_kernels() {
  static const CpuKernels kNone = {
      .isa = "emulated CUDA", .query_tasks = nullptr, .value_tasks = nullptr, .passes = {}};
  return kNone;
}

bool select_cpu_kernels(const char* isa) { return isa == nullptr; }

}  // namespace rtdetr_ops
