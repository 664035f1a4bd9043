// SPDX-License-Identifier: Apache-2.0
// What the CUDA sources offer to the operator: launches on a stream, free of CUDA's and torch's
// headers.
#pragma once

#include <cstddef>

#include "ms_deform_attn/params.h"

namespace rtdetr_ops {

struct CudaContext {
  void* stream;     // a cudaStream_t
  void* workspace;  // as many bytes as the function below asks for, aligned to 256
  bool deterministic;
};

std::size_t forward_workspace(const Problem&);
std::size_t backward_workspace(const Backward&, bool deterministic);

// Null, or what went wrong. Nothing waits for the device. `head_anchors` of Backward is in device
// memory.
const char* launch_forward(const Forward&, const CudaContext&);
const char* launch_backward(const Backward&, const CudaContext&);

}  // namespace rtdetr_ops
