// SPDX-License-Identifier: Apache-2.0
// One number of storage to its compute type and back. Internal linkage for the reason given in
// simd.h.
#pragma once

#include <cstdint>
#include <cstring>

#include "common/dtype.h"

namespace rtdetr_ops {
namespace {

// Bit by bit, so that loops over them vectorize on every instruction set.

inline float to_float(BFloat16 h) {
  const std::uint32_t bits = static_cast<std::uint32_t>(h.bits) << 16;
  float f;
  std::memcpy(&f, &bits, sizeof f);
  return f;
}

inline float to_float(Float16 h) {
  const std::uint32_t sign = static_cast<std::uint32_t>(h.bits & 0x8000u) << 16;
  const std::uint32_t magnitude = h.bits & 0x7fffu;
  // A half read as the float of the same layout is too small by 2^112; the product also normalizes
  // subnormals.
  const std::uint32_t shifted = magnitude << 13;
  float f;
  std::memcpy(&f, &shifted, sizeof f);
  f *= 0x1p112f;
  std::uint32_t bits;
  std::memcpy(&bits, &f, sizeof bits);
  bits |= magnitude >= 0x7c00u ? 0x7f800000u : 0u;
  bits |= sign;
  std::memcpy(&f, &bits, sizeof f);
  return f;
}

inline BFloat16 to_bfloat16(float f) {
  std::uint32_t bits;
  std::memcpy(&bits, &f, sizeof bits);
  const std::uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return {static_cast<std::uint16_t>(f != f ? 0x7fc0u : rounded)};
}

inline Float16 to_float16(float f) {
  std::uint32_t bits;
  std::memcpy(&bits, &f, sizeof bits);
  const std::uint32_t sign = (bits >> 16) & 0x8000u;
  bits &= 0x7fffffffu;
  std::uint32_t half;
  if (bits >= 0x47800000u) {  // 65536 and above, infinity, NaN
    half = bits > 0x7f800000u ? 0x7e00u : 0x7c00u;
  } else if (bits < 0x38800000u) {  // below 2^-14: adding 0.5 leaves the subnormal, rounded, in the
                                    // low bits
    float magnitude;
    std::memcpy(&magnitude, &bits, sizeof magnitude);
    magnitude += 0.5f;
    std::memcpy(&half, &magnitude, sizeof half);
    half -= 0x3f000000u;
  } else {
    half = (bits - 0x38000000u + 0xfffu + ((bits >> 13) & 1u)) >> 13;
  }
  return {static_cast<std::uint16_t>(sign | half)};
}

inline float to_float(float f) { return f; }
inline double to_float(double d) { return d; }

template <class T>
struct Rounded;
template <>
struct Rounded<double> {
  static double from(double d) { return d; }
};
template <>
struct Rounded<float> {
  static float from(double d) { return static_cast<float>(d); }
  static float from(float f) { return f; }
};
template <>
struct Rounded<BFloat16> {
  static BFloat16 from(double d) { return to_bfloat16(static_cast<float>(d)); }
};
template <>
struct Rounded<Float16> {
  static Float16 from(double d) { return to_float16(static_cast<float>(d)); }
};

}  // namespace
}  // namespace rtdetr_ops
