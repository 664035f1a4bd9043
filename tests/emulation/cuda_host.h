// SPDX-License-Identifier: Apache-2.0
// The part of the CUDA runtime that launches kernels, for one emulated device without streams.
#pragma once

#include <cstddef>
#include <tuple>
#include <utility>

#include "cuda_vectors.h"

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorLaunchFailure = 719,
};

enum cudaDeviceAttr {
  cudaDevAttrMaxGridDimZ = 7,
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrComputeCapabilityMajor = 75,
  cudaDevAttrComputeCapabilityMinor = 76,
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
};

enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };

using cudaStream_t = struct CUstream_st*;
struct cudaLaunchAttribute;

struct cudaLaunchConfig_t {
  dim3 gridDim;
  dim3 blockDim;
  std::size_t dynamicSmemBytes;
  cudaStream_t stream;
  cudaLaunchAttribute* attrs;
  unsigned int numAttrs;
};

// After cudaErrorLaunchFailure: a sentence saying what the emulator found in this host thread's
// latest failed launch.
const char* cudaGetErrorString(cudaError_t error);
const char* cudaGetErrorName(cudaError_t error);
cudaError_t cudaGetLastError();
cudaError_t cudaPeekAtLastError();

cudaError_t cudaGetDevice(int* device);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
cudaError_t cudaMemsetAsync(void* address, int byte, std::size_t bytes, cudaStream_t stream = {});

namespace emulation {

using Function = void (*)();

struct Kernel {
  Function function;
  void (*run)(const void* launch);  // one thread of it
  const void* launch;               // function and arguments
};

cudaError_t launch(const cudaLaunchConfig_t& config, const Kernel& kernel);
cudaError_t set_shared_memory_limit(Function kernel, cudaFuncAttribute attribute, int bytes);

template <class... Parameters>
struct Launch {
  void (*function)(Parameters...);
  std::tuple<Parameters...> arguments;

  static void run(const void* launch) {
    const auto& [function, arguments] = *static_cast<const Launch*>(launch);
    std::apply(function, arguments);
  }
};

}  // namespace emulation

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  const emulation::Launch<Parameters...> launch{kernel, {std::forward<Arguments>(arguments)...}};
  return emulation::launch(*config, {reinterpret_cast<emulation::Function>(kernel),
                                     &emulation::Launch<Parameters...>::run, &launch});
}

template <class... Parameters>
cudaError_t cudaFuncSetAttribute(void (*kernel)(Parameters...), cudaFuncAttribute attribute,
                                 int value) {
  const auto function = reinterpret_cast<emulation::Function>(kernel);
  return emulation::set_shared_memory_limit(function, attribute, value);
}
