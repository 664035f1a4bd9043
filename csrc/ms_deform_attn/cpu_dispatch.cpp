// SPDX-License-Identifier: Apache-2.0
#if defined(RTDETR_OPS_X86_DISPATCH)
#include <cpuid.h>
#endif

#include <atomic>
#include <cstring>

#include "ms_deform_attn/cpu_kernels.h"

namespace rtdetr_ops {
namespace {

struct Isa {
  const CpuKernels* kernels;
  bool (*supported)();
};

#if defined(RTDETR_OPS_X86_DISPATCH)
bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
// Clang's __builtin_cpu_supports learned this word late.
bool has_f16c() {
  unsigned eax, ebx, ecx, edx;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C);
}
bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
}
#endif
bool always() { return true; }

// In order of preference.
const Isa kIsas[] = {
#if defined(RTDETR_OPS_X86_DISPATCH)
    {&kAvx512Kernels, has_avx512},
    {&kAvx2Kernels, has_avx2},
#endif
    {&kBaselineKernels, always},
};

const CpuKernels* widest() {
  for (const Isa& entry : kIsas) {
    if (entry.supported()) return entry.kernels;
  }
  return &kBaselineKernels;
}

std::atomic<const CpuKernels*> selected{nullptr};

}  // namespace

const CpuKernels& cpu_kernels() {
  const CpuKernels* kernels = selected.load(std::memory_order_relaxed);
  if (kernels == nullptr) {
    kernels = widest();
    selected.store(kernels, std::memory_order_relaxed);
  }
  return *kernels;
}

bool select_cpu_kernels(const char* isa) {
  if (isa == nullptr) {
    selected.store(widest(), std::memory_order_relaxed);
    return true;
  }
  for (const Isa& entry : kIsas) {
    if (std::strcmp(entry.kernels->isa, isa) == 0 && entry.supported()) {
      selected.store(entry.kernels, std::memory_order_relaxed);
      return true;
    }
  }
  return false;
}

}  // namespace rtdetr_ops
