// SPDX-License-Identifier: Apache-2.0
// Short-lived arrays of a task. Kernels need some thirty of them per call; a stack per thread makes
// each one a pointer increment, where thirty aligned allocations would cost more than a small call
// itself.
//
// Internal linkage for the reason given in simd.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>

namespace rtdetr_ops {

// Thrown by Buffer. It has linkage, for it is caught in another file, and no function of its own.
struct OutOfMemory {
  std::int64_t bytes;
};

namespace {

constexpr std::int64_t kCacheLine = 64;

constexpr std::align_val_t kAlignment{kCacheLine};

struct ScratchStack {
  static constexpr std::int64_t kCapacity = 1 << 18;
  char* base = nullptr;
  std::int64_t used = 0;
  ~ScratchStack() { ::operator delete(base, kAlignment); }
};
inline thread_local ScratchStack scratch_stack;

// An aligned array that frees itself, uninitialized. Arrays of a thread must end in the reverse
// order of their beginning, as local variables and members do.
template <class T>
class Buffer {
 public:
  explicit Buffer(std::int64_t size) {
    const std::int64_t bytes =
        (size * static_cast<std::int64_t>(sizeof(T)) / kCacheLine + 1) * kCacheLine;
    ScratchStack& stack = scratch_stack;
#if !defined(__SANITIZE_ADDRESS__)  // separate allocations let the sanitizer see an overrun
    if (stack.base == nullptr) stack.base = static_cast<char*>(allocate(ScratchStack::kCapacity));
    if (stack.used + bytes <= ScratchStack::kCapacity) {
      data_ = reinterpret_cast<T*>(stack.base + stack.used);
      borrowed_ = bytes;
      stack.used += bytes;
      return;
    }
#endif
    (void)stack;
    data_ = static_cast<T*>(allocate(bytes));
  }
  ~Buffer() {
    if (borrowed_ == 0) ::operator delete(data_, kAlignment);
    scratch_stack.used -= borrowed_;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  operator T*() const { return data_; }

 private:
  static void* allocate(std::int64_t bytes) {
    void* const memory = ::operator new(static_cast<std::size_t>(bytes), kAlignment, std::nothrow);
    if (memory == nullptr) throw OutOfMemory{bytes};
    return memory;
  }

  T* data_;
  std::int64_t borrowed_ = 0;
};

}  // namespace
}  // namespace rtdetr_ops
