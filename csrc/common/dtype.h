// SPDX-License-Identifier: Apache-2.0
// Storage types of the operator, torch-free.
#pragma once

#include <cstdint>

namespace rtdetr_ops {

enum class DType : int { kFloat64, kFloat32, kBFloat16, kFloat16 };

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

}  // namespace rtdetr_ops
