// SPDX-License-Identifier: Apache-2.0
// Small kernels, each run by name: probes NAME. One that a test expects something of prints it.
#pragma once

#include <cuda_runtime.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

namespace probes {

// The launch of every probe, unless it says otherwise: two warps.
struct Shape {
  dim3 grid = 1;
  dim3 block = 64;
  std::size_t shared = 1024;
};

// Prints the outcome: the name of the error, and its text.
template <class... Parameters, class... Arguments>
cudaError_t launch(Shape shape, void (*kernel)(Parameters...), Arguments... arguments) {
  cudaLaunchConfig_t config = {};
  config.gridDim = shape.grid;
  config.blockDim = shape.block;
  config.dynamicSmemBytes = shape.shared;
  const cudaError_t error = cudaLaunchKernelEx(&config, kernel, arguments...);
  std::printf("%s: %s\n", cudaGetErrorName(error), cudaGetErrorString(error));
  return error;
}

template <class T>
void print(const std::vector<T>& numbers) {
  for (const T number : numbers) std::printf("%.17g ", static_cast<double>(number));
  std::printf("\n");
}

template <class T>
T* shared() {
  return static_cast<T*>(emulated_shared_memory());
}

using Probe = void (*)();
inline std::map<std::string, Probe>& all() {
  static std::map<std::string, Probe> table;
  return table;
}

struct Registration {
  Registration(const char* name, Probe probe) { all().emplace(name, probe); }
};

}  // namespace probes

#define PROBE(name)                                            \
  void name();                                                 \
  const probes::Registration registration_##name{#name, name}; \
  void name()
