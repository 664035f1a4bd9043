// SPDX-License-Identifier: Apache-2.0
// One vector of the widest registers that this translation unit is compiled for, and its loads and
// stores.
//
// Everything has internal linkage on purpose: the same header is compiled for several instruction
// sets into one library, and a shared inline function could be resolved to the copy that needs the
// newest of them.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "common/dtype.h"
#include "common/half.h"

namespace rtdetr_ops {
namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

template <class A>
struct VectorTypes;
template <>
struct VectorTypes<float> {
  typedef float Vector __attribute__((vector_size(kVectorBytes)));
};
template <>
struct VectorTypes<double> {
  typedef double Vector __attribute__((vector_size(kVectorBytes)));
};
typedef std::uint32_t Words __attribute__((vector_size(kVectorBytes)));
typedef std::uint16_t HalfWords __attribute__((vector_size(kVectorBytes / 2)));

template <class A>
using Vec = typename VectorTypes<A>::Vector;
using VecF = Vec<float>;
using VecD = Vec<double>;

template <class A>
constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(A));

// One 32-bit integer for each lane of Vec<A>.
template <class A>
struct IntegerTypes {
  typedef std::int32_t Vector __attribute__((vector_size(kLanes<A> * 4)));
};
template <class A>
using IntVec = typename IntegerTypes<A>::Vector;

// Vectors pass through memcpy one by one: an array copied whole would live on the stack.
template <class V, class T>
inline V load_vector(const T* p) {
  V v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

template <class V, class T>
inline void store_vector(T* p, V v) {
  std::memcpy(p, &v, sizeof v);
}

// The result of comparing two Vec<A>, as 0 or -1 in each lane.
template <class A, class Mask>
inline IntVec<A> lane_mask(Mask mask) {
  return __builtin_convertvector(mask, IntVec<A>);
}

inline VecF multiply_add(VecF a, VecF b, VecF c) {
#if defined(__AVX512F__)
  return (VecF)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX2__)
  return (VecF)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__aarch64__)
  return (VecF)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
  return a * b + c;
#endif
}

inline VecD multiply_add(VecD a, VecD b, VecD c) {
#if defined(__AVX512F__)
  return (VecD)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
#elif defined(__AVX2__)
  return (VecD)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#elif defined(__aarch64__)
  return (VecD)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
#else
  return a * b + c;
#endif
}

// Intrinsics, because a loop over the lanes becomes sixteen masked broadcasts.
inline VecF splat(float scalar) {
#if defined(__AVX512F__)
  return (VecF)_mm512_set1_ps(scalar);
#elif defined(__AVX2__)
  return (VecF)_mm256_set1_ps(scalar);
#else
  return VecF{scalar, scalar, scalar, scalar};
#endif
}

inline VecD splat(double scalar) {
#if defined(__AVX512F__)
  return (VecD)_mm512_set1_pd(scalar);
#elif defined(__AVX2__)
  return (VecD)_mm256_set1_pd(scalar);
#else
  return VecD{scalar, scalar};
#endif
}

// The four sums of the lanes of four vectors.
inline void sum_lanes(const VecF v[4], float sums[4]) {
#if defined(__AVX2__)
  __m256 h[4];
  for (int i = 0; i < 4; ++i) {
#if defined(__AVX512F__)
    const __m512d wide = (__m512d)v[i];
    h[i] = _mm256_add_ps(_mm512_castps512_ps256((__m512)v[i]),
                         _mm256_castpd_ps(_mm512_extractf64x4_pd(wide, 1)));
#else
    h[i] = (__m256)v[i];
#endif
  }
  const __m256 pairs = _mm256_hadd_ps(_mm256_hadd_ps(h[0], h[1]), _mm256_hadd_ps(h[2], h[3]));
  _mm_storeu_ps(sums, _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps(pairs, 1)));
#else
  for (int i = 0; i < 4; ++i) {
    sums[i] = (v[i][0] + v[i][2]) + (v[i][1] + v[i][3]);
  }
#endif
}

inline void sum_lanes(const VecD v[4], double sums[4]) {
  for (int i = 0; i < 4; ++i) {
    double sum = 0;
    for (int lane = 0; lane < kLanes<double>; ++lane) sum += v[i][lane];
    sums[i] = sum;
  }
}

// Registers<V, N> reads and writes N vectors of storage V as its compute type. The order of the
// lanes inside the N vectors is its own affair; it is the same for reading and writing.

template <class V, int N>
struct Registers {  // float, double
  using A = V;
  static void load(const V* p, Vec<A> v[N]) {
    for (int i = 0; i < N; ++i) v[i] = load_vector<Vec<A>>(p + i * kLanes<A>);
  }
  static void store(V* p, const Vec<A> v[N]) {
    for (int i = 0; i < N; ++i) store_vector(p + i * kLanes<A>, v[i]);
  }
};

inline VecF widen_bfloat16(HalfWords h) {
  const Words words = __builtin_convertvector(h, Words) << 16;
  return (VecF)words;
}

inline Words round_to_bfloat16(VecF v) {  // the 16 bits in the upper half of each word
  const Words bits = (Words)v;
  const Words rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
  const Words nan = (Words)(v != v);
  return (rounded & ~nan) | (nan & 0x7fc00000u);
}

template <>
struct Registers<BFloat16, 1> {
  using A = float;
  static void load(const BFloat16* p, VecF v[1]) {
    v[0] = widen_bfloat16(load_vector<HalfWords>(p));
  }
  static void store(BFloat16* p, const VecF v[1]) {
    store_vector(p, __builtin_convertvector(round_to_bfloat16(v[0]) >> 16, HalfWords));
  }
};

// Two vectors in one load: the even channels are the low halves of the words, the odd ones the high
// halves.
template <int N>
struct Registers<BFloat16, N> {
  using A = float;
  static_assert(N % 2 == 0);
  static void load(const BFloat16* p, VecF v[N]) {
    for (int i = 0; i < N; i += 2) {
      const Words words = load_vector<Words>(p + i * kLanes<float>);
      v[i] = (VecF)(words << 16);
      v[i + 1] = (VecF)(words & 0xffff0000u);
    }
  }
  static void store(BFloat16* p, const VecF v[N]) {
    for (int i = 0; i < N; i += 2) {
      const Words words =
          (round_to_bfloat16(v[i]) >> 16) | (round_to_bfloat16(v[i + 1]) & 0xffff0000u);
      store_vector(p + i * kLanes<float>, words);
    }
  }
};

template <int N>
struct Registers<Float16, N> {
  using A = float;
  static void load(const Float16* p, VecF v[N]) {
    for (int i = 0; i < N; ++i) {
      const Float16* q = p + i * kLanes<float>;
#if defined(__AVX512F__)
      v[i] = (VecF)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(q)));
#elif defined(__F16C__)
      v[i] = (VecF)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(q)));
#else
      for (int lane = 0; lane < kLanes<float>; ++lane) v[i][lane] = to_float(q[lane]);
#endif
    }
  }
  static void store(Float16* p, const VecF v[N]) {
    for (int i = 0; i < N; ++i) {
      Float16* q = p + i * kLanes<float>;
#if defined(__AVX512F__)
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(q),
                          _mm512_cvtps_ph((__m512)v[i], _MM_FROUND_TO_NEAREST_INT));
#elif defined(__F16C__)
      _mm_storeu_si128(reinterpret_cast<__m128i*>(q),
                       _mm256_cvtps_ph((__m256)v[i], _MM_FROUND_TO_NEAREST_INT));
#else
      for (int lane = 0; lane < kLanes<float>; ++lane) q[lane] = to_float16(v[i][lane]);
#endif
    }
  }
};

// `v` with its first `count` lanes 0
template <class A>
inline Vec<A> clear_leading(Vec<A> v, int count) {
  IntVec<A> lane;
  for (int i = 0; i < kLanes<A>; ++i) lane[i] = i;
  const auto keep = __builtin_convertvector(lane >= count, decltype(v < v));
  return keep ? v : Vec<A>{};
}

// The first `count` lanes of one vector, 0 in the others; memory past them is not touched.
template <class V>
inline Vec<Compute<V>> load_partial(const V* p, int count) {
#if defined(__AVX512F__)
  if constexpr (sizeof(V) == 4) {
    return (VecF)_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1u), p);
  } else if constexpr (sizeof(V) == 2) {
    const __m256i h = _mm256_maskz_loadu_epi16(static_cast<__mmask16>((1u << count) - 1u), p);
    Vec<float> v[1];
    V words[kLanes<float>];
    std::memcpy(words, &h, sizeof h);
    Registers<V, 1>::load(words, v);
    return v[0];
  } else {
    return (Vec<Compute<V>>)_mm512_maskz_loadu_pd(static_cast<__mmask8>((1u << count) - 1u), p);
  }
#else
  V buffer[kLanes<Compute<V>>] = {};
  for (int i = 0; i < count; ++i) buffer[i] = p[i];
  Vec<Compute<V>> v[1];
  Registers<V, 1>::load(buffer, v);
  return v[0];
#endif
}

template <class V>
inline void store_partial(V* p, Vec<Compute<V>> v, int count) {
  V buffer[kLanes<Compute<V>>];
  Registers<V, 1>::store(buffer, &v);
  for (int i = 0; i < count; ++i) p[i] = buffer[i];
}

}  // namespace
}  // namespace rtdetr_ops
