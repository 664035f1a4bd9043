// SPDX-License-Identifier: Apache-2.0
// Stands in for the CUDA header of this name: kernels become plain C++ and run on the host.
//
// Offers what the kernels of this project use, under CUDA's names; anything else fails to compile.
#pragma once

// Compute capability times 100: kernels choose their code for an architecture by it.
#if !defined(RTDETR_OPS_EMULATED_ARCH)
#define RTDETR_OPS_EMULATED_ARCH 900
#endif
#define __CUDA_ARCH__ RTDETR_OPS_EMULATED_ARCH

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __grid_constant__
#define __launch_bounds__(...)

#include "cuda_device.h"
#include "cuda_host.h"
#include "cuda_vectors.h"
