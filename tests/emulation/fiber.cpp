// SPDX-License-Identifier: Apache-2.0
#include "fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <new>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define RTDETR_OPS_ASAN
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define RTDETR_OPS_ASAN
#endif

#if defined(RTDETR_OPS_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#else
#define ASAN_UNPOISON_MEMORY_REGION(address, bytes)
#define __sanitizer_start_switch_fiber(fake, bottom, bytes)
#define __sanitizer_finish_switch_fiber(fake, bottom, bytes)
#endif

namespace emulation {
namespace {

// Touched pages alone cost memory. A sanitizer's report needs some tens of KiB.
constexpr std::size_t kStackBytes = 256 * 1024;

// Stacks lie at multiples of their size: tops shifted against each other do not all fall into the
// same few cache lines.
constexpr std::size_t kShifts = 64, kShiftBytes = 192;

std::size_t guard_bytes() { return static_cast<std::size_t>(sysconf(_SC_PAGESIZE)); }

char* map_stack() {
  void* memory = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  // Stacks grow downwards: one that is too small ends in a fault, not in its neighbor.
  if (mprotect(memory, guard_bytes(), PROT_NONE) != 0) throw std::bad_alloc();
  return static_cast<char*>(memory);
}

std::size_t next_shift() {
  static std::size_t stacks = 0;
  return stacks++ % kShifts * kShiftBytes;
}

// enter() takes no argument, so that either kind of switch can call it. One per host thread:
// fibers of two may start at once.
thread_local Fiber* starting = nullptr;

}  // namespace

#if defined(RTDETR_OPS_FIBER_ASSEMBLY)

// Saves the registers that a call preserves, and swaps the stacks. swapcontext would do, but asks
// the kernel for the signal mask each time.
extern "C" void rtdetr_ops_emulation_switch(void** save, void* load);
asm(R"(
.text
.hidden rtdetr_ops_emulation_switch
.type rtdetr_ops_emulation_switch, @function
.globl rtdetr_ops_emulation_switch
rtdetr_ops_emulation_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size rtdetr_ops_emulation_switch, . - rtdetr_ops_emulation_switch
)");

namespace {

void prepare(void*& context, char* /*stack*/, char* top, void (*enter)()) {
  constexpr int kRegisters = 6;
  auto words = reinterpret_cast<std::uintptr_t*>(top) - 2;  // the upper: enter() returns nowhere
  words[1] = 0;
  words[0] = reinterpret_cast<std::uintptr_t>(enter);
  for (int i = 1; i <= kRegisters; ++i) words[-i] = 0;
  context = words - kRegisters;
}

void switch_context(void*& save, void*& load) { rtdetr_ops_emulation_switch(&save, load); }

}  // namespace

#else

namespace {

void prepare(ucontext_t& context, char* stack, char* top, void (*enter)()) {
  getcontext(&context);
  context.uc_stack.ss_sp = stack;
  context.uc_stack.ss_size = static_cast<std::size_t>(top - stack);
  context.uc_link = nullptr;
  makecontext(&context, enter, 0);
}

void switch_context(ucontext_t& save, ucontext_t& load) { swapcontext(&save, &load); }

}  // namespace

#endif

Fiber::Fiber() : stack_(map_stack()), top_(stack_ + kStackBytes - next_shift()) {}

Fiber::~Fiber() { munmap(stack_, kStackBytes); }

void Fiber::start(Entry entry, void* argument) {
  entry_ = entry;
  argument_ = argument;
  finished_ = false;
  fake_inside_ = nullptr;
  ASAN_UNPOISON_MEMORY_REGION(stack_ + guard_bytes(), kStackBytes - guard_bytes());
  prepare(inside_, stack_ + guard_bytes(), top_, &Fiber::enter);
}

void Fiber::resume() {
  starting = this;
  __sanitizer_start_switch_fiber(&fake_outside_, stack_ + guard_bytes(),
                                 static_cast<std::size_t>(top_ - stack_) - guard_bytes());
  switch_context(outside_, inside_);
  __sanitizer_finish_switch_fiber(fake_outside_, nullptr, nullptr);
}

void Fiber::suspend() { leave(false); }

void Fiber::enter() {
  Fiber* const self = starting;
  __sanitizer_finish_switch_fiber(nullptr, &self->outside_stack_, &self->outside_bytes_);
  self->entry_(self->argument_);
  self->finished_ = true;
  self->leave(true);
}

void Fiber::leave([[maybe_unused]] bool for_good) {
  __sanitizer_start_switch_fiber(for_good ? nullptr : &fake_inside_, outside_stack_,
                                 outside_bytes_);
  switch_context(inside_, outside_);
  __sanitizer_finish_switch_fiber(fake_inside_, &outside_stack_, &outside_bytes_);
}

}  // namespace emulation
