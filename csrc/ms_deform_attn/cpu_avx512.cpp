// SPDX-License-Identifier: Apache-2.0
#include "ms_deform_attn/cpu_passes.h"

namespace rtdetr_ops {

const CpuKernels kAvx512Kernels = make_kernels("avx512");

}  // namespace rtdetr_ops
