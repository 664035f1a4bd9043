// SPDX-License-Identifier: Apache-2.0
// Runs the threads of one block as fibers, one at a time, in random order.
#pragma once

#include <atomic>
#include <cstddef>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "cuda_host.h"
#include "races.h"
#include "random.h"
#include "warp.h"

namespace emulation {

class Multiprocessor {
 public:
  // One for the process, kept so that the stacks of its fibers serve all launches. Whoever runs
  // something on it holds the lock of launch().
  static Multiprocessor& instance();

  // What all blocks of a launch share.
  void begin(const cudaLaunchConfig_t& config, const Kernel& kernel, Random random);

  // Runs one block. Returns what was found wrong with it, or an empty string.
  std::string run(uint3 block);

  // For the thread that runs now. These return when the scheduler picks it again.
  void barrier();
  std::uint64_t meet(const Meeting& meeting);

  // Never returns: the rest of the launch is dropped.
  [[noreturn]] void fail(std::string finding);

  // What the running thread is about to do to memory, and the code that does it. Does nothing
  // outside kernels, for a thread's own stack, and in a build that does not look for races.
  void touch(Access access, Bytes bytes, const void* code);

  Thread* running() const { return running_.load(std::memory_order_relaxed); }
  void* shared_memory() const { return shared_.get(); }

 private:
  struct FreeAligned {
    void operator()(void* memory) const;
  };

  void fill_shared_memory();
  void start(Thread& thread);
  void step();
  void make_ready(Thread& thread);
  void leave_barrier_if_complete();
  Warp warp_of(const Thread& thread) const;
  std::string describe_deadlock() const;
  std::string describe(const Race& race, Access access, Bytes bytes, const void* code) const;

  const Kernel* kernel_ = nullptr;
  Random random_;
  std::size_t shared_bytes_ = 0;
  std::unique_ptr<void, FreeAligned> shared_;

  std::deque<Thread> pool_;       // as many as the largest block had
  std::vector<Thread*> threads_;  // of this block, by number
  std::vector<Thread*> ready_;    // in no order
  std::size_t alive_ = 0;         // not exited
  std::size_t at_barrier_ = 0;
  std::atomic<Thread*> running_ = nullptr;  // touch() looks at it in any host thread
  Races races_;
  std::string finding_;
};

// "block (1, 0, 0), thread (2, 0, 0)"
std::string place(uint3 block, uint3 thread);

}  // namespace emulation
