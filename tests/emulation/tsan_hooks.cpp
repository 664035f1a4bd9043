// SPDX-License-Identifier: Apache-2.0
// What the compiler calls around every access to memory in code built with -fsanitize=thread: the
// flag is used for these calls alone, ThreadSanitizer's own library is not linked.
#if defined(RTDETR_OPS_EMULATOR_RACES)

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "multiprocessor.h"

namespace {

using emulation::Access;

void touch(Access access, const void* address, std::size_t bytes, const void* code) {
  emulation::Multiprocessor::instance().touch(access, {address, bytes}, code);
}

}  // namespace

#define CALLER __builtin_return_address(0)

#define ACCESS(hook, access, bytes) \
  void __tsan_##hook##bytes(void* address) { touch(Access::access, address, bytes, CALLER); }
#define ACCESSES(bytes)                         \
  ACCESS(read, kRead, bytes)                    \
  ACCESS(write, kWrite, bytes)                  \
  ACCESS(unaligned_read, kRead, bytes)          \
  ACCESS(unaligned_write, kWrite, bytes)        \
  ACCESS(volatile_read, kRead, bytes)           \
  ACCESS(volatile_write, kWrite, bytes)         \
  ACCESS(unaligned_volatile_read, kRead, bytes) \
  ACCESS(unaligned_volatile_write, kWrite, bytes)

// A memory order is passed as a number; one thread runs at a time, so that none is needed.
#define ATOMIC_UPDATE(bits, name, operation)                                              \
  std::uint##bits##_t __tsan_atomic##bits##_##name(volatile std::uint##bits##_t* address, \
                                                   std::uint##bits##_t value, int) {      \
    touch(Access::kAtomic, const_cast<std::uint##bits##_t*>(address), bits / 8, CALLER);  \
    return __atomic_##operation(address, value, __ATOMIC_SEQ_CST);                        \
  }
#define ATOMIC_COMPARE(bits, name)                                                             \
  int __tsan_atomic##bits##_##name(volatile std::uint##bits##_t* address,                      \
                                   std::uint##bits##_t* expected, std::uint##bits##_t desired, \
                                   int, int) {                                                 \
    touch(Access::kAtomic, const_cast<std::uint##bits##_t*>(address), bits / 8, CALLER);       \
    return __atomic_compare_exchange_n(address, expected, desired, false, __ATOMIC_SEQ_CST,    \
                                       __ATOMIC_SEQ_CST);                                      \
  }
#define ATOMICS(bits)                                                                         \
  std::uint##bits##_t __tsan_atomic##bits##_load(const volatile std::uint##bits##_t* address, \
                                                 int) {                                       \
    touch(Access::kAtomic, const_cast<std::uint##bits##_t*>(address), bits / 8, CALLER);      \
    return __atomic_load_n(address, __ATOMIC_SEQ_CST);                                        \
  }                                                                                           \
  void __tsan_atomic##bits##_store(volatile std::uint##bits##_t* address,                     \
                                   std::uint##bits##_t value, int) {                          \
    touch(Access::kAtomic, const_cast<std::uint##bits##_t*>(address), bits / 8, CALLER);      \
    __atomic_store_n(address, value, __ATOMIC_SEQ_CST);                                       \
  }                                                                                           \
  ATOMIC_UPDATE(bits, exchange, exchange_n)                                                   \
  ATOMIC_UPDATE(bits, fetch_add, fetch_add)                                                   \
  ATOMIC_UPDATE(bits, fetch_sub, fetch_sub)                                                   \
  ATOMIC_UPDATE(bits, fetch_and, fetch_and)                                                   \
  ATOMIC_UPDATE(bits, fetch_or, fetch_or)                                                     \
  ATOMIC_UPDATE(bits, fetch_xor, fetch_xor)                                                   \
  ATOMIC_COMPARE(bits, compare_exchange_strong)                                               \
  ATOMIC_COMPARE(bits, compare_exchange_weak)

extern "C" {

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_atomic_thread_fence(int) {}
void __tsan_atomic_signal_fence(int) {}

ACCESSES(1)
ACCESSES(2)
ACCESSES(4)
ACCESSES(8)
ACCESSES(16)

void __tsan_read_range(void* address, unsigned long bytes) {
  touch(Access::kRead, address, bytes, CALLER);
}
void __tsan_write_range(void* address, unsigned long bytes) {
  touch(Access::kWrite, address, bytes, CALLER);
}
void __tsan_vptr_read(void** address) { touch(Access::kRead, address, sizeof(void*), CALLER); }
void __tsan_vptr_update(void** address, void*) {
  touch(Access::kWrite, address, sizeof(void*), CALLER);
}

// Clang's; GCC leaves the C library's in place.
void* __tsan_memcpy(void* to, const void* from, unsigned long bytes) {
  touch(Access::kRead, from, bytes, CALLER);
  touch(Access::kWrite, to, bytes, CALLER);
  return std::memcpy(to, from, bytes);
}
void* __tsan_memmove(void* to, const void* from, unsigned long bytes) {
  touch(Access::kRead, from, bytes, CALLER);
  touch(Access::kWrite, to, bytes, CALLER);
  return std::memmove(to, from, bytes);
}
void* __tsan_memset(void* to, int byte, unsigned long bytes) {
  touch(Access::kWrite, to, bytes, CALLER);
  return std::memset(to, byte, bytes);
}

ATOMICS(8)
ATOMICS(16)
ATOMICS(32)
ATOMICS(64)

}  // extern "C"

#endif
