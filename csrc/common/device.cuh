// SPDX-License-Identifier: Apache-2.0
// What kernels ask of the device beyond CUDA C++: conversions, wide loads, reductions in memory.
// Inline PTX stands here alone, each piece beside its portable twin: without NVIDIA's compiler the
// kernels run on the host, and tests/emulation/cuda_runtime.h is what the first include finds.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "common/dtype.h"
#if !defined(__CUDACC__)
#include "common/half.h"
#endif

namespace rtdetr_ops {
namespace {

constexpr int kWarp = 32;

__device__ inline char* shared_memory() {
#if defined(__CUDACC__)
  extern __shared__ uint4 dynamic_shared_memory[];
  return reinterpret_cast<char*>(dynamic_shared_memory);
#else
  return static_cast<char*>(emulated_shared_memory());
#endif
}

__device__ inline double widen(double x) { return x; }
__device__ inline float widen(float x) { return x; }

__device__ inline float widen(BFloat16 x) {
  return __uint_as_float(static_cast<unsigned>(x.bits) << 16);
}

__device__ inline float widen(Float16 x) {
#if defined(__CUDACC__)
  float f;
  asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(x.bits));
  return f;
#else
  return to_float(x);
#endif
}

// Round to nearest even, to the storage type `To`.
template <class To>
struct Narrow;

template <>
struct Narrow<double> {
  __device__ static double from(double x) { return x; }
};

template <>
struct Narrow<float> {
  __device__ static float from(float x) { return x; }
  __device__ static float from(double x) { return static_cast<float>(x); }
};

template <>
struct Narrow<BFloat16> {
  __device__ static BFloat16 from(float x) {
#if defined(__CUDACC__)
    BFloat16 h;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(h.bits) : "f"(x));
    return h;
#else
    return to_bfloat16(x);
#endif
  }
  __device__ static BFloat16 from(double x) { return from(static_cast<float>(x)); }
};

template <>
struct Narrow<Float16> {
  __device__ static Float16 from(float x) {
#if defined(__CUDACC__)
    Float16 h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h.bits) : "f"(x));
    return h;
#else
    return to_float16(x);
#endif
  }
  __device__ static Float16 from(double x) { return from(static_cast<float>(x)); }
};

// One wide multiplication, 32 by 32 to 64 bits, where C++ would multiply 64 by 64.
__device__ inline const char* pixel_address(const char* first, int i, unsigned pitch) {
#if defined(__CUDACC__)
  std::uint64_t address;
  asm("mad.wide.u32 %0, %1, %2, %3;" : "=l"(address) : "r"(i), "r"(pitch), "l"(first));
  return reinterpret_cast<const char*>(address);
#else
  return first + static_cast<std::uint64_t>(static_cast<unsigned>(i)) * pitch;
#endif
}

// One load or store of a lane: kBytes, or one number of storage type V where that is all that
// alignment allows.
template <class V, int kBytes>
struct Pack {
  static_assert(kBytes == sizeof(V));
  static constexpr int kChannels = 1;
  using A = Compute<V>;
  V number;

  // Pixel `i` of those that lie `pitch` bytes apart; zero, and nothing read, where i < 0.
  __device__ static Pack load_pixel(const char* first, int i, unsigned pitch) {
    if (i < 0) return {V{}};
    return {*reinterpret_cast<const V*>(pixel_address(first, i, pitch))};
  }
  __device__ static void store(V* to, const A (&values)[1]) { *to = Narrow<V>::from(values[0]); }
  __device__ void unpack(A (&values)[1]) const { values[0] = widen(number); }
};

template <class V>
struct Pack<V, 16> {
  static constexpr int kChannels = 16 / static_cast<int>(sizeof(V));
  using A = Compute<V>;
  union {
    uint4 words;
    V numbers[kChannels];
  };

  // The address is computed for any `i`, so that the load alone is predicated; it takes the
  // read-only path, for nothing writes to what a launch reads.
  __device__ static Pack load_pixel(const char* first, int i, unsigned pitch) {
    Pack pack;
    uint4& words = pack.words;
    words = make_uint4(0, 0, 0, 0);
#if defined(__CUDACC__)
    asm("{\n"
        "  .reg .pred wanted;\n"
        "  setp.ge.s32 wanted, %4, 0;\n"
        "  @wanted ld.global.nc.v4.u32 {%0, %1, %2, %3}, [%5];\n"
        "}\n"
        : "+r"(words.x), "+r"(words.y), "+r"(words.z), "+r"(words.w)
        : "r"(i), "l"(pixel_address(first, i, pitch)));
#else
    if (i >= 0) words = __ldg(reinterpret_cast<const uint4*>(pixel_address(first, i, pitch)));
#endif
    return pack;
  }

  __device__ static void store(V* to, const A (&values)[kChannels]) {
    Pack pack;
#pragma unroll
    for (int i = 0; i < kChannels; ++i) pack.numbers[i] = Narrow<V>::from(values[i]);
    *reinterpret_cast<uint4*>(to) = pack.words;
  }

  __device__ void unpack(A (&values)[kChannels]) const {
#pragma unroll
    for (int i = 0; i < kChannels; ++i) values[i] = widen(numbers[i]);
  }
};

// The build switches contraction off, so that a location falls into the same pixel on every
// backend: what wants a fused multiply-add says so.
__device__ inline float multiply_add(float a, float b, float c) { return fmaf(a, b, c); }
__device__ inline double multiply_add(double a, double b, double c) { return fma(a, b, c); }
__device__ inline float exponential(float x) { return expf(x); }
__device__ inline double exponential(double x) { return exp(x); }

// Numbers that one reduction in global memory adds: Hopper and later have a 16-byte form.
template <class A>
struct ReductionWidth {
  static constexpr int value = 1;
};
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
template <>
struct ReductionWidth<float> {
  static constexpr int value = 4;
};
#endif

// *to += the numbers at `from`, atomically each, in no order. Global memory.
template <int kWidth>
struct Reduce {
  static_assert(kWidth == 1);
  __device__ static void add(float* to, const float* from) {
#if defined(__CUDACC__)
    asm volatile("red.relaxed.gpu.global.add.f32 [%0], %1;" ::"l"(__cvta_generic_to_global(to)),
                 "f"(*from)
                 : "memory");
#else
    atomicAdd(to, *from);
#endif
  }
  __device__ static void add(double* to, const double* from) {
#if defined(__CUDACC__)
    asm volatile("red.relaxed.gpu.global.add.f64 [%0], %1;" ::"l"(__cvta_generic_to_global(to)),
                 "d"(*from)
                 : "memory");
#else
    atomicAdd(to, *from);
#endif
  }
};

template <>
struct Reduce<4> {
  __device__ static void add(float* to, const float* from) {
#if defined(__CUDACC__)
    asm volatile("red.relaxed.gpu.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(
                     __cvta_generic_to_global(to)),
                 "f"(from[0]), "f"(from[1]), "f"(from[2]), "f"(from[3])
                 : "memory");
#else
    for (int i = 0; i < 4; ++i) atomicAdd(to + i, from[i]);
#endif
  }
};

}  // namespace
}  // namespace rtdetr_ops
