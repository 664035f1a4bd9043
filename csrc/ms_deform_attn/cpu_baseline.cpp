// SPDX-License-Identifier: Apache-2.0
#include "ms_deform_attn/cpu_passes.h"

namespace rtdetr_ops {

const CpuKernels kBaselineKernels = make_kernels("baseline");

}  // namespace rtdetr_ops
