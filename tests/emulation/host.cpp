// SPDX-License-Identifier: Apache-2.0
// The host functions: what a launch may ask for, the order of its blocks, what was found.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <numeric>
#include <string>
#include <vector>

#include "cuda_runtime.h"
#include "multiprocessor.h"
#include "symbols.h"

namespace emulation {
namespace {

// Of the device, as CUDA's programming guide gives them for capability 9.0; but only two blocks in
// the direction z, so that small calls take the loops over what is beyond a grid.
constexpr std::size_t kMaxThreads = 1024;
constexpr dim3 kMaxBlock{1024, 1024, 64};
constexpr dim3 kMaxGrid{2147483647, 65535, 2};
constexpr int kDefaultSharedBytes = 48 * 1024;
constexpr int kOptInSharedBytes = 227 * 1024;
constexpr int kMultiprocessors = 4;

// One launch at a time, and with it all that is known of kernels and launches.
std::mutex one_at_a_time;
std::map<Function, int> shared_memory_limits;
std::uint64_t launches = 0;

thread_local cudaError_t last_error = cudaSuccess;
thread_local std::string last_finding = "unspecified launch failure";

cudaError_t remember(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}

std::uint64_t seed() {
  const char* text = std::getenv("RTDETR_OPS_EMULATOR_SEED");
  return text == nullptr ? 1 : std::strtoull(text, nullptr, 10);
}

bool fits(dim3 size, dim3 limit) {
  return size.x >= 1 && size.y >= 1 && size.z >= 1 && size.x <= limit.x && size.y <= limit.y &&
         size.z <= limit.z;
}

int shared_memory_limit(Function kernel) {
  const auto raised = shared_memory_limits.find(kernel);
  return raised == shared_memory_limits.end() ? kDefaultSharedBytes : raised->second;
}

cudaError_t check(const cudaLaunchConfig_t& config, Function kernel) {
  const dim3 block = config.blockDim;
  if (!fits(config.gridDim, kMaxGrid) || !fits(block, kMaxBlock) ||
      std::size_t{block.x} * block.y * block.z > kMaxThreads) {
    return cudaErrorInvalidConfiguration;
  }
  const auto limit = static_cast<std::size_t>(shared_memory_limit(kernel));
  const bool attributes = config.numAttrs != 0;  // clusters and the like: none is emulated
  return config.dynamicSmemBytes > limit || attributes ? cudaErrorInvalidValue : cudaSuccess;
}

// In random order: on a device, no block may rely on another one's having run.
std::string run_blocks(Multiprocessor& multiprocessor, dim3 grid, Random random) {
  std::vector<std::uint64_t> order(std::uint64_t{grid.x} * grid.y * grid.z);
  std::iota(order.begin(), order.end(), std::uint64_t{0});
  random.shuffle(order);
  for (const std::uint64_t number : order) {
    const uint3 block = {static_cast<unsigned int>(number % grid.x),
                         static_cast<unsigned int>(number / grid.x % grid.y),
                         static_cast<unsigned int>(number / grid.x / grid.y)};
    if (std::string finding = multiprocessor.run(block); !finding.empty()) return finding;
  }
  return {};
}

}  // namespace

cudaError_t launch(const cudaLaunchConfig_t& config, const Kernel& kernel) {
  const std::lock_guard lock(one_at_a_time);
  if (const cudaError_t error = check(config, kernel.function); error != cudaSuccess) {
    return remember(error);
  }
  Random random(seed() + Random(++launches).next());
  Multiprocessor& multiprocessor = Multiprocessor::instance();
  multiprocessor.begin(config, kernel, Random(random.next()));
  const std::string finding = run_blocks(multiprocessor, config.gridDim, random);
  if (finding.empty()) return cudaSuccess;
  last_finding = function_at(reinterpret_cast<const void*>(kernel.function)) + ": " + finding +
                 " [launch " + std::to_string(launches) +
                 " with RTDETR_OPS_EMULATOR_SEED=" + std::to_string(seed()) + "]";
  return remember(cudaErrorLaunchFailure);
}

cudaError_t set_shared_memory_limit(Function kernel, cudaFuncAttribute attribute, int bytes) {
  const std::lock_guard lock(one_at_a_time);
  const bool valid = attribute == cudaFuncAttributeMaxDynamicSharedMemorySize && bytes >= 0 &&
                     bytes <= kOptInSharedBytes;
  if (!valid) return remember(cudaErrorInvalidValue);
  shared_memory_limits[kernel] = bytes;
  return cudaSuccess;
}

}  // namespace emulation

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorInvalidValue:
      return "cudaErrorInvalidValue";
    case cudaErrorInvalidConfiguration:
      return "cudaErrorInvalidConfiguration";
    case cudaErrorLaunchFailure:
      return "cudaErrorLaunchFailure";
  }
  return "unrecognized error code";
}

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorInvalidConfiguration:
      return "invalid configuration argument";
    case cudaErrorLaunchFailure:
      return emulation::last_finding.c_str();
  }
  return "unrecognized error code";
}

cudaError_t cudaPeekAtLastError() { return emulation::last_error; }

cudaError_t cudaGetLastError() { return std::exchange(emulation::last_error, cudaSuccess); }

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  static const std::map<cudaDeviceAttr, int> kAttributes = {
      {cudaDevAttrMultiProcessorCount, emulation::kMultiprocessors},
      {cudaDevAttrComputeCapabilityMajor, RTDETR_OPS_EMULATED_ARCH / 100},
      {cudaDevAttrComputeCapabilityMinor, RTDETR_OPS_EMULATED_ARCH / 10 % 10},
      {cudaDevAttrMaxSharedMemoryPerBlockOptin, emulation::kOptInSharedBytes},
      {cudaDevAttrMaxGridDimZ, static_cast<int>(emulation::kMaxGrid.z)},
  };
  const auto found = kAttributes.find(attribute);
  if (device != 0 || found == kAttributes.end()) return emulation::remember(cudaErrorInvalidValue);
  *value = found->second;
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* address, int byte, std::size_t bytes, cudaStream_t /*stream*/) {
  std::memset(address, byte, bytes);
  return cudaSuccess;
}
