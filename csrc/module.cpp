// SPDX-License-Identifier: Apache-2.0
// The Python module of the library: what was built, and the switch of the CPU instruction set.
// Loading it registers the operators.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <map>
#include <optional>
#include <string>

#include "ms_deform_attn/cpu_kernels.h"

namespace {

std::map<std::string, std::string> build_info() {
  return {
      {"version", RTDETR_OPS_VERSION},
      {"torch", RTDETR_OPS_TORCH_BUILD},
      {"compiler", __VERSION__},
      {"cuda", RTDETR_OPS_CUDA_STATUS},
      {"cpu", rtdetr_ops::cpu_kernels().isa},
  };
}

void use_cpu_isa(const std::optional<std::string>& name) {
  if (!rtdetr_ops::select_cpu_kernels(name ? name->c_str() : nullptr)) {
    throw pybind11::value_error(
        "isa: expected one that this build and processor have (baseline, avx2, avx512), got \"" +
        *name + "\"");
  }
}

}  // namespace

PYBIND11_MODULE(_C, module) {
  module.doc() = "Compiled kernels of rtdetr_ops; importing it registers torch.ops.rtdetr_ops.";
  module.def("build_info", &build_info, "What this library was built with and what it runs on.");
  module.def("use_cpu_isa", &use_cpu_isa, pybind11::arg("isa").none(true),
             "Run the CPU kernels of one instruction set; None returns to the widest.");
}
