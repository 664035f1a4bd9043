// SPDX-License-Identifier: Apache-2.0
// Between torch's stable tensors and the torch-free structs of the kernels.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "common/dtype.h"
#include "common/errors.h"

namespace rtdetr_ops {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Shape = torch::headeronly::IntHeaderOnlyArrayRef;

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
      fail(name, ": expected float64, float32, bfloat16 or float16, got ",
           torch::headeronly::toString(tensor.scalar_type()));
  }
}

inline std::int32_t dtype_of(const Tensor& tensor) {
  std::int32_t dtype;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(tensor.get(), &dtype));
  return dtype;
}

inline std::int64_t element_size(std::int32_t dtype) {
  return static_cast<std::int64_t>(aoti_torch_dtype_element_size(dtype));
}

inline std::string shape_text(Shape shape) {
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
  if (!same) {
    fail(name, ": expected shape ", shape_text({expected.data(), expected.size()}), ", got ",
         shape_text(actual));
  }
}

struct TensorDevice {
  std::int32_t type, index;

  explicit TensorDevice(const Tensor& tensor) {
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(tensor.get(), &type));
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(tensor.get(), &index));
  }
  bool is_cpu() const { return type == aoti_torch_device_type_cpu(); }
  bool operator==(const TensorDevice& other) const {
    return type == other.type && (is_cpu() || index == other.index);
  }
  std::string text() const {
    if (is_cpu()) return "cpu";
    const std::string name =
        type == aoti_torch_device_type_cuda() ? "cuda" : "device type " + std::to_string(type);
    return name + ":" + std::to_string(index);
  }
};

inline void check_device(const Tensor& tensor, const char* name, const TensorDevice& expected) {
  const TensorDevice device(tensor);
  if (!(device == expected))
    fail(name, ": expected device ", expected.text(), " as value, got ", device.text());
}

// A storage can be freed under its tensors, as FSDP does by untyped_storage().resize_(0).
inline void check_storage(const Tensor& tensor, const char* name) {
  if (tensor.numel() == 0) return;
  std::int64_t last, bytes;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_storage_offset(tensor.get(), &last));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_storage_size(tensor.get(), &bytes));
  const auto sizes = tensor.sizes(), strides = tensor.strides();
  for (std::size_t i = 0; i < sizes.size(); ++i) last += (sizes[i] - 1) * strides[i];
  const std::int64_t needed = (last + 1) * element_size(dtype_of(tensor));
  if (bytes < needed) {
    fail(name, ": expected a storage of at least ", needed, " bytes, got ", bytes,
         " (freed or resized)");
  }
}

// What a kernel may take: memory that is there, on the device of `value`.
inline const Tensor& checked(const Tensor& tensor, const char* name, const Tensor& value) {
  check_device(tensor, name, TensorDevice(value));
  check_storage(tensor, name);
  return tensor;
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

// torch.frombuffer can start anywhere.
inline bool is_aligned(const Tensor& tensor) {
  const auto address = reinterpret_cast<std::uintptr_t>(tensor.const_data_ptr());
  return address % static_cast<std::uintptr_t>(element_size(dtype_of(tensor))) == 0;
}

// In the words of torch, which trainers look for before they try a smaller batch. operators.py
// makes the second torch.OutOfMemoryError.
[[noreturn]] inline void fail_to_allocate(std::int64_t bytes, const TensorDevice& device) {
  if (device.is_cpu()) {
    fail("DefaultCPUAllocator: can't allocate memory: you tried to allocate ", bytes, " bytes.");
  }
  fail("CUDA out of memory. Tried to allocate ", bytes, " bytes on ", device.text(), ".");
}

// Uninitialized and contiguous, on the device of `like`. The shim is called directly: the
// dispatcher route of torch::stable::new_empty looks the operator up by name each time, which shows
// on small inputs.
inline Tensor allocate_as(std::int32_t dtype, const Tensor& like, Shape shape) {
  std::vector<std::int64_t> strides(shape.size());
  std::int64_t bytes = element_size(dtype), stride = 1;
  bool overflows = false;
  for (std::size_t i = shape.size(); i-- > 0;) {
    strides[i] = stride;
    const std::int64_t size = shape[i] > 0 ? shape[i] : 1;
    overflows |= __builtin_mul_overflow(stride, size, &stride);
    overflows |= __builtin_mul_overflow(bytes, size, &bytes);
  }
  if (overflows) fail("value: expected a result below 2^63 bytes, got shape ", shape_text(shape));
  const TensorDevice device(like);
  AtenTensorHandle handle;
  if (aoti_torch_empty_strided(static_cast<std::int64_t>(shape.size()), shape.data(),
                               strides.data(), dtype, device.type, device.index,
                               &handle) != TORCH_SUCCESS) {
    const char* const error = error_of_torch();
    if (error != nullptr) fail(error);
    fail_to_allocate(bytes, device);
  }
  return Tensor(handle);
}

// With the dtype of `like` too.
inline Tensor allocate(const Tensor& like, Shape shape) {
  return allocate_as(dtype_of(like), like, shape);
}

inline Tensor allocate_bytes(const Tensor& like, std::int64_t bytes) {
  return allocate_as(aoti_torch_dtype_uint8(), like, {bytes});
}

inline Tensor allocate_like(const Tensor& like) { return allocate(like, like.sizes()); }

// Not torch::stable::contiguous or to: memory that is not there would be no more than a code.
inline Tensor dense_copy(const Tensor& tensor, std::int32_t dtype) {
  Tensor copy = allocate_as(dtype, tensor, tensor.sizes());
  torch::stable::copy_(copy, tensor);
  return copy;
}

inline Tensor dense_from(const Tensor& tensor, std::int64_t axis) {
  return is_dense_from(tensor, axis) && is_aligned(tensor) ? tensor
                                                           : dense_copy(tensor, dtype_of(tensor));
}

}  // namespace rtdetr_ops
