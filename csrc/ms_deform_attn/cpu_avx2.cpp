// SPDX-License-Identifier: Apache-2.0
#include "ms_deform_attn/cpu_passes.h"

namespace rtdetr_ops {

const CpuKernels kAvx2Kernels = make_kernels("avx2");

}  // namespace rtdetr_ops
