// SPDX-License-Identifier: Apache-2.0
// Between torch's stable tensors and the torch-free structs of the kernels.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>
#include <torch/headeronly/util/shim_utils.h>

#include <cstdint>
#include <string>
#include <vector>

#include "common/dtype.h"

namespace rtdetr_ops {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline DType storage_type(const Tensor& tensor, const char* name) {
  switch (tensor.scalar_type()) {
    case ScalarType::Double:
      return DType::kFloat64;
    case ScalarType::Float:
      return DType::kFloat32;
    case ScalarType::BFloat16:
      return DType::kBFloat16;
    case ScalarType::Half:
      return DType::kFloat16;
    default:
      STD_TORCH_CHECK(false, name, ": expected float64, float32, bfloat16 or float16, got ",
                      torch::headeronly::toString(tensor.scalar_type()));
  }
}

inline std::string shape_text(torch::headeronly::IntHeaderOnlyArrayRef shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  }
  return text + "]";
}

inline void check_shape(const Tensor& tensor, const char* name,
                        const std::vector<std::int64_t>& expected) {
  const auto actual = tensor.sizes();
  bool same = actual.size() == expected.size();
  for (std::size_t i = 0; same && i < expected.size(); ++i) same = actual[i] == expected[i];
  STD_TORCH_CHECK(same, name, ": expected shape ", shape_text({expected.data(), expected.size()}),
                  ", got ", shape_text(actual));
}

// True when the axes from `axis` on are laid out without gaps.
inline bool is_dense_from(const Tensor& tensor, std::int64_t axis) {
  std::int64_t stride = 1;
  for (std::int64_t i = tensor.dim() - 1; i >= axis; --i) {
    if (tensor.size(i) != 1 && tensor.stride(i) != stride) return false;
    stride *= tensor.size(i);
  }
  return true;
}

// Uninitialized and contiguous, on the device of `like`. The shim is called directly: the
// dispatcher route of torch::stable::new_empty looks the operator up by name each time, which shows
// on small inputs.
inline Tensor allocate_as(std::int32_t dtype, const Tensor& like,
                          torch::headeronly::IntHeaderOnlyArrayRef shape) {
  std::vector<std::int64_t> strides(shape.size(), 1);
  for (std::size_t i = shape.size(); i-- > 1;)
    strides[i - 1] = strides[i] * (shape[i] > 0 ? shape[i] : 1);
  std::int32_t device_type, device_index;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(like.get(), &device_index));
  AtenTensorHandle handle;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(static_cast<std::int64_t>(shape.size()),
                                                  shape.data(), strides.data(), dtype, device_type,
                                                  device_index, &handle));
  return Tensor(handle);
}

// With the dtype of `like` too.
inline Tensor allocate(const Tensor& like, torch::headeronly::IntHeaderOnlyArrayRef shape) {
  std::int32_t dtype;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(like.get(), &dtype));
  return allocate_as(dtype, like, shape);
}

inline Tensor allocate_bytes(const Tensor& like, std::int64_t bytes) {
  return allocate_as(aoti_torch_dtype_uint8(), like, {bytes});
}

inline Tensor allocate_like(const Tensor& like) { return allocate(like, like.sizes()); }

inline Tensor dense_from(const Tensor& tensor, std::int64_t axis) {
  return is_dense_from(tensor, axis) ? tensor : torch::stable::contiguous(tensor);
}

}  // namespace rtdetr_ops
