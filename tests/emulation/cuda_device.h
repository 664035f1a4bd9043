// SPDX-License-Identifier: Apache-2.0
// What a kernel may call: built-in variables, barriers, exchanges within a warp, atomics,
// arithmetic.
#pragma once

#include <math.h>  // exp, fma and the like without std::, overloaded for float and double

#include <bit>
#include <cstdint>
#include <type_traits>

#include "cuda_vectors.h"

// The scheduler sets them before it lets a thread run.
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
inline constexpr int warpSize = 32;

// Dynamic shared memory of the block: exactly the bytes that the launch asked for, filled with
// 0xFF.
void* emulated_shared_memory();

void __syncthreads();
void __syncwarp(unsigned int mask = 0xffffffff);
unsigned int __ballot_sync(unsigned int mask, int predicate);

float atomicAdd(float* address, float value);
double atomicAdd(double* address, double value);
int atomicAdd(int* address, int value);
unsigned int atomicAdd(unsigned int* address, unsigned int value);

namespace emulation {

enum class Shuffle { kIndex, kUp, kDown, kXor };

// The bits that the lane named by `operand` brought; all ones where CUDA leaves them undefined.
std::uint64_t shuffle(Shuffle kind, unsigned int mask, std::uint64_t bits, unsigned int operand,
                      int width);

template <class T>
T shuffle_value(Shuffle kind, unsigned int mask, T value, unsigned int operand, int width) {
  static_assert(std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8));
  using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
  const auto bits = shuffle(kind, mask, std::bit_cast<Bits>(value), operand, width);
  return std::bit_cast<T>(static_cast<Bits>(bits));
}

}  // namespace emulation

template <class T>
T __shfl_sync(unsigned int mask, T value, int lane, int width = warpSize) {
  const auto operand = static_cast<unsigned int>(lane);
  return emulation::shuffle_value(emulation::Shuffle::kIndex, mask, value, operand, width);
}
template <class T>
T __shfl_up_sync(unsigned int mask, T value, unsigned int delta, int width = warpSize) {
  return emulation::shuffle_value(emulation::Shuffle::kUp, mask, value, delta, width);
}
template <class T>
T __shfl_down_sync(unsigned int mask, T value, unsigned int delta, int width = warpSize) {
  return emulation::shuffle_value(emulation::Shuffle::kDown, mask, value, delta, width);
}
template <class T>
T __shfl_xor_sync(unsigned int mask, T value, int lane_mask, int width = warpSize) {
  const auto operand = static_cast<unsigned int>(lane_mask);
  return emulation::shuffle_value(emulation::Shuffle::kXor, mask, value, operand, width);
}

template <class T>
T __ldg(const T* address) {
  return *address;
}

inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline unsigned int __float_as_uint(float x) { return std::bit_cast<unsigned int>(x); }
inline float __int_as_float(int bits) { return std::bit_cast<float>(bits); }
inline float __uint_as_float(unsigned int bits) { return std::bit_cast<float>(bits); }

inline int __popc(unsigned int bits) { return std::popcount(bits); }
inline int __ffs(int bits) { return __builtin_ffs(bits); }

// As in CUDA, a NaN loses against a number.
template <class A, class B>
  requires std::is_arithmetic_v<A> && std::is_arithmetic_v<B>
constexpr std::common_type_t<A, B> min(A a, B b) {
  using T = std::common_type_t<A, B>;
  const T x = static_cast<T>(a), y = static_cast<T>(b);
  return y < x || x != x ? y : x;
}
template <class A, class B>
  requires std::is_arithmetic_v<A> && std::is_arithmetic_v<B>
constexpr std::common_type_t<A, B> max(A a, B b) {
  using T = std::common_type_t<A, B>;
  const T x = static_cast<T>(a), y = static_cast<T>(b);
  return x < y || x != x ? y : x;
}

// Rounded one by one, never contracted: kernels are compiled with -ffp-contract=off.
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
