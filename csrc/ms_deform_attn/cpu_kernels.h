// SPDX-License-Identifier: Apache-2.0
// What one instruction set offers, and the choice among them.
//
// Each pass is a function over a range of independent tasks, so that any number of threads may
// share them; the result does not depend on how the range is split.
#pragma once

#include <cstdint>

#include "ms_deform_attn/params.h"

namespace rtdetr_ops {

// For one dtype of value.
struct CpuPasses {
  // Tasks: (b, m, block of queries).
  void (*forward)(const Forward&, std::int64_t begin, std::int64_t end);
  void (*backward_taps)(const Backward&, std::int64_t begin, std::int64_t end);

  // Tasks: (b, q). After backward_taps: adds up the heads' shares of grad_reference, in their
  // order.
  void (*backward_reference)(const Backward&, std::int64_t begin, std::int64_t end);

  // Tasks: (b, m, strip of one level), each the only writer of its part of grad_value.
  void (*backward_value)(const Backward&, std::int64_t threads, std::int64_t begin,
                         std::int64_t end);
};

struct CpuKernels {
  const char* isa;
  std::int64_t (*query_tasks)(const Problem&);
  std::int64_t (*value_tasks)(const Problem&, std::int64_t threads);
  CpuPasses passes[kDTypes];  // index: the DType of value
};

extern const CpuKernels kBaselineKernels;
#if defined(RTDETR_OPS_X86_DISPATCH)
extern const CpuKernels kAvx2Kernels;
extern const CpuKernels kAvx512Kernels;
#endif

// The widest instruction set of this processor, or the narrower one asked for by
// select_cpu_kernels.
const CpuKernels& cpu_kernels();

// "baseline", "avx2" or "avx512"; false when this build or processor lacks it. Null: back to the
// widest.
bool select_cpu_kernels(const char* isa);

}  // namespace rtdetr_ops
