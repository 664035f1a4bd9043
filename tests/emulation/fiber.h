// SPDX-License-Identifier: Apache-2.0
// A function on a stack of its own, which can be left in the middle and gone on with later.
#pragma once

#include <cstddef>

#if defined(__x86_64__) && !defined(RTDETR_OPS_PORTABLE_FIBERS)
#define RTDETR_OPS_FIBER_ASSEMBLY
#else
#include <ucontext.h>
#endif

namespace emulation {

class Fiber {
 public:
  using Entry = void (*)(void* argument);

  Fiber();
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // The next resume() calls entry(argument). What ran here before is dropped, finished or not.
  void start(Entry entry, void* argument);

  // Runs it until it calls suspend() or ends; not after it has ended.
  void resume();

  // Called from within: returns from resume(), and here again at the next one.
  void suspend();

  bool finished() const { return finished_; }
  bool owns(const void* address) const {
    const auto* byte = static_cast<const char*>(address);
    return byte >= stack_ && byte < top_;
  }

 private:
#if defined(RTDETR_OPS_FIBER_ASSEMBLY)
  using Context = void*;  // stack pointer; the registers lie on the stack
#else
  using Context = ucontext_t;
#endif

  static void enter();
  void leave(bool for_good);

  char* stack_;  // lowest address
  char* top_;
  Context inside_;
  Context outside_;
  Entry entry_ = nullptr;
  void* argument_ = nullptr;
  bool finished_ = true;

  // AddressSanitizer's records of both stacks.
  void* fake_inside_ = nullptr;
  void* fake_outside_ = nullptr;
  const void* outside_stack_ = nullptr;
  std::size_t outside_bytes_ = 0;
};

}  // namespace emulation
