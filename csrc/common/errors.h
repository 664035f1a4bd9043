// SPDX-License-Identifier: Apache-2.0
// Errors as their reader meets them: a sentence, also where one comes from torch. Included before
// any other header of torch.
#pragma once

#include <torch/headeronly/util/shim_utils.h>

#include <sstream>
#include <stdexcept>

// What torch's last exception in this thread said; null beside torch before 2.13.
extern "C" __attribute__((weak)) const char* torch_exception_get_what_without_backtrace();

namespace rtdetr_ops {

// Python sees RuntimeError. Not STD_TORCH_CHECK, which puts function, file and line before it.
template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  throw std::runtime_error(text.str());
}

// Null where torch does not tell.
inline const char* error_of_torch() {
  return torch_exception_get_what_without_backtrace == nullptr
             ? nullptr
             : torch_exception_get_what_without_backtrace();
}

[[noreturn]] inline void fail_in_torch(const char* call) {
  const char* const error = error_of_torch();
  if (error != nullptr) fail(error);
  fail("ms_deform_attn: torch failed in ", call);
}

}  // namespace rtdetr_ops

// The stable interface returns a code for an exception, and this macro of its headers would throw
// the text of the call. A block, for some of them write no semicolon after it.
#undef TORCH_ERROR_CODE_CHECK
#define TORCH_ERROR_CODE_CHECK(call)  \
  if ((call) != TORCH_SUCCESS) {      \
    rtdetr_ops::fail_in_torch(#call); \
  }
