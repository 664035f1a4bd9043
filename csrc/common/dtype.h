// SPDX-License-Identifier: Apache-2.0
// Storage types of the operator, torch-free.
#pragma once

#include <cstdint>

namespace rtdetr_ops {

enum class DType : int { kFloat64, kFloat32, kBFloat16, kFloat16 };
constexpr int kDTypes = 4;

struct BFloat16 {
  std::uint16_t bits;
};
struct Float16 {
  std::uint16_t bits;
};

// Coordinates, softmax and sums of a storage type: float64 for itself, float32 for the rest.
template <class T>
struct ComputeOf {
  using type = float;
};
template <>
struct ComputeOf<double> {
  using type = double;
};
template <class T>
using Compute = typename ComputeOf<T>::type;

// Internal linkage for the reason given in simd.h.
namespace {

// Calls `f` with a number of the storage type.
template <class F>
inline void with_dtype(DType dtype, F&& f) {
  switch (dtype) {
    case DType::kFloat64:
      return f(double{});
    case DType::kFloat32:
      return f(float{});
    case DType::kBFloat16:
      return f(BFloat16{});
    case DType::kFloat16:
      return f(Float16{});
  }
}

}  // namespace

}  // namespace rtdetr_ops
