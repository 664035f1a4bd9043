// SPDX-License-Identifier: Apache-2.0
// What the CUDA sources offer to the operator: launches on a stream, free of CUDA's and torch's
// headers.
#pragma once

#include <cstddef>

#include "ms_deform_attn/params.h"

namespace rtdetr_ops {

// Success, or what went wrong.
class Status {
 public:
  Status() = default;
  explicit Status(const char* error) : error_(error) {}
  bool failed() const { return error_ != nullptr; }
  const char* error() const { return error_; }  // null on success

 private:
  const char* error_ = nullptr;
};

struct CudaContext {
  void* stream;     // a cudaStream_t
  void* workspace;  // as many bytes as the function below asks for, aligned to 256
  bool deterministic;
};

std::size_t forward_workspace(const Problem&);
std::size_t backward_workspace(const Backward&, bool deterministic);

// Nothing waits for the device. `head_grad_reference` of Backward is in device memory.
Status launch_forward(const Forward&, const CudaContext&);
Status launch_backward(const Backward&, const CudaContext&);

}  // namespace rtdetr_ops
