// SPDX-License-Identifier: Apache-2.0
// Accesses that AddressSanitizer or UndefinedBehaviorSanitizer stops.
#include "probe.h"

namespace {

using probes::launch;
using probes::shared;

__global__ void shared_overrun_kernel(std::size_t count) { shared<short>()[count] = 1; }
PROBE(shared_overrun) {
  launch({.block = 1, .shared = 1022}, shared_overrun_kernel, std::size_t{511});
}

__global__ void global_overrun_kernel(const float* numbers, float* out, int at) {
  *out = __ldg(numbers + at);
}
PROBE(global_overrun) {
  std::vector<float> numbers(7), out(1);
  launch({.block = 1}, global_overrun_kernel, numbers.data(), out.data(), 7);
}

__global__ void atomic_overrun_kernel(double* numbers, int at) { atomicAdd(numbers + at, 1.0); }
PROBE(atomic_overrun) {
  std::vector<double> numbers(3);
  launch({.block = 1}, atomic_overrun_kernel, numbers.data(), 3);
}

// The barrier leaves the fiber and comes back: the sanitizer must still know its stack.
__global__ void local_overrun_kernel(float* out, int count) {
  float local[4];
  float* next = local;
  for (int i = 0; i < count; ++i) {
    __syncthreads();
    *next++ = static_cast<float>(i);
  }
  out[threadIdx.x] = local[threadIdx.x % 4];
}
PROBE(local_overrun) {
  std::vector<float> out(64);
  launch({}, local_overrun_kernel, out.data(), 5);
}

__global__ void misaligned_kernel(const float* numbers, float* out) {
  *out = reinterpret_cast<const float4*>(numbers + 1)->x;
}
PROBE(misaligned) {
  alignas(16) float numbers[8] = {};
  float out = 0;
  launch({.block = 1}, misaligned_kernel, numbers, &out);
}

__device__ int deep(volatile int* depth) {
  volatile char frame[1024];
  frame[0] = 1;
  return *depth-- > 0 ? deep(depth) + frame[0] : 0;
}
__global__ void deep_kernel(int* depth) { *depth = deep(depth); }
PROBE(stack_overflow) {
  std::vector<int> depth(1000, 1);
  launch({.block = 1}, deep_kernel, depth.data() + 999);
}

}  // namespace
