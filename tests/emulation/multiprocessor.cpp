// SPDX-License-Identifier: Apache-2.0
#include "multiprocessor.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <new>
#include <utility>

#include "cuda_device.h"
#include "symbols.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace emulation {
namespace {

constexpr std::align_val_t kSharedAlignment{128};
constexpr int kFreshByte = 0xff;  // NaN in every floating dtype

std::string coordinates(uint3 index) {
  return "(" + std::to_string(index.x) + ", " + std::to_string(index.y) + ", " +
         std::to_string(index.z) + ")";
}

uint3 index_of(unsigned int number, dim3 size) {
  return {number % size.x, number / size.x % size.y, number / size.x / size.y};
}

// By Access.
constexpr std::array kPresent = {"reads", "writes", "atomically updates"};
constexpr std::array kPerfect = {"read", "written", "atomically updated"};

std::string describe_wait(const Thread& thread) {
  switch (thread.state) {
    case State::kAtBarrier:
      return "waits at __syncthreads";
    case State::kAtMeeting:
      return "waits at " + describe(thread.meeting);
    case State::kExited:
      return "has exited";
    default:
      return "runs";
  }
}

}  // namespace

std::string place(uint3 block, uint3 thread) {
  return "block " + coordinates(block) + ", thread " + coordinates(thread);
}

// "writes 4 bytes of shared memory at 0x10, which block (1, 0, 0), thread (2, 0, 0) has read with
// nothing to order them"
std::string Multiprocessor::describe(const Race& race, Access access, Bytes bytes,
                                     const void* code) const {
  const bool shared = Bytes{shared_.get(), shared_bytes_}.contain(bytes.begin);
  const auto from = shared ? reinterpret_cast<std::uintptr_t>(shared_.get()) : 0;
  const auto at = reinterpret_cast<std::uintptr_t>(bytes.begin) - from;
  return std::string(kPresent[static_cast<int>(access)]) + " " + std::to_string(bytes.count) +
         " bytes of " + (shared ? "shared" : "global") + " memory at " + hexadecimal(at) +
         ", which " + place(race.block, index_of(race.thread, blockDim)) + " has " +
         kPerfect[static_cast<int>(race.access)] + " with nothing to order them (code at " +
         location(code) + ")";
}

Multiprocessor& Multiprocessor::instance() {
  static Multiprocessor multiprocessor;
  return multiprocessor;
}

void Multiprocessor::FreeAligned::operator()(void* memory) const {
  ::operator delete(memory, kSharedAlignment);
}

void Multiprocessor::begin(const cudaLaunchConfig_t& config, const Kernel& kernel, Random random) {
  kernel_ = &kernel;
  random_ = random;
  shared_bytes_ = config.dynamicSmemBytes;
  gridDim = config.gridDim;
  blockDim = config.blockDim;
  const std::size_t count = std::size_t{blockDim.x} * blockDim.y * blockDim.z;
  while (pool_.size() < count) pool_.emplace_back();
  threads_.clear();
  for (unsigned int number = 0; number < count; ++number) {
    pool_[number].number = number;
    pool_[number].index = index_of(number, blockDim);
    threads_.push_back(&pool_[number]);
  }
  races_.begin_launch();
}

std::string Multiprocessor::run(uint3 block) {
  blockIdx = block;
  fill_shared_memory();
  finding_.clear();
  ready_.clear();
  at_barrier_ = 0;
  alive_ = threads_.size();
  races_.begin_block(block, threads_.size(), {shared_.get(), shared_bytes_});
  for (Thread* thread : threads_) start(*thread);
  while (!ready_.empty() && finding_.empty()) step();
  if (finding_.empty() && alive_ > 0) finding_ = describe_deadlock();
  shared_.reset();
  return finding_;
}

// A fresh block of exactly this size, so that AddressSanitizer sees an access beyond it.
void Multiprocessor::fill_shared_memory() {
  shared_.reset(::operator new(shared_bytes_, kSharedAlignment));
  std::memset(shared_.get(), kFreshByte, shared_bytes_);
}

void Multiprocessor::start(Thread& thread) {
  const auto body = [](void* kernel) {
    static_cast<const Kernel*>(kernel)->run(static_cast<const Kernel*>(kernel)->launch);
  };
  thread.fiber.start(body, const_cast<Kernel*>(kernel_));
  make_ready(thread);
}

void Multiprocessor::step() {
  std::swap(ready_[random_.below(ready_.size())], ready_.back());
  Thread& thread = *ready_.back();
  ready_.pop_back();
  running_.store(&thread, std::memory_order_relaxed);
  threadIdx = thread.index;
  thread.fiber.resume();
  if (!thread.fiber.finished()) return;
  thread.state = State::kExited;
  --alive_;
  leave_barrier_if_complete();
}

void Multiprocessor::make_ready(Thread& thread) {
  thread.state = State::kReady;
  ready_.push_back(&thread);
}

void Multiprocessor::barrier() {
  Thread& self = *running();
  self.state = State::kAtBarrier;
  ++at_barrier_;
  leave_barrier_if_complete();
  self.fiber.suspend();
}

// As on a device, a barrier does not wait for threads that have exited.
void Multiprocessor::leave_barrier_if_complete() {
  if (at_barrier_ == 0 || at_barrier_ < alive_) return;
  at_barrier_ = 0;
  races_.barrier();
  for (Thread* thread : threads_) {
    if (thread->state == State::kAtBarrier) make_ready(*thread);
  }
}

std::uint64_t Multiprocessor::meet(const Meeting& meeting) {
  Thread& self = *running();
  if (((meeting.mask >> self.lane()) & 1) == 0) {
    fail("calls " + emulation::describe(meeting) + ", which does not name its own lane " +
         std::to_string(self.lane()));
  }
  self.meeting = meeting;
  self.state = State::kAtMeeting;
  const Warp warp = warp_of(self);
  if (missing(warp, meeting) == nullptr) {
    exchange(warp, meeting);
    if (kFindRaces && meeting.operation == Operation::kSyncwarp) {
      races_.warp_barrier(self.number - self.lane(), lanes_of(warp, meeting.mask));
    }
    for (Thread* thread : warp) {
      if (thread->waits_for(meeting)) make_ready(*thread);
    }
  }
  self.fiber.suspend();
  return self.received;
}

void Multiprocessor::fail(std::string finding) {
  finding_ = place(blockIdx, running()->index) + " " + std::move(finding);
  running()->fiber.suspend();
  __builtin_unreachable();  // the scheduler stops at a finding
}

void Multiprocessor::touch(Access access, Bytes bytes, const void* code) {
  if constexpr (kFindRaces) {
    // Host code has hooks too, in this thread and in others: none of it runs on a fiber's stack.
    const Thread* self = running();
    if (self == nullptr || !self->fiber.owns(__builtin_frame_address(0))) return;
    if (self->fiber.owns(bytes.begin)) return;
    const std::optional<Race> race = races_.touch(self->number, access, bytes);
    if (race) fail(describe(*race, access, bytes, code));
  }
}

Warp Multiprocessor::warp_of(const Thread& thread) const {
  const std::size_t first = thread.number - thread.lane();
  const std::size_t lanes = std::min<std::size_t>(kWarpLanes, threads_.size() - first);
  return Warp(threads_).subspan(first, lanes);
}

std::string Multiprocessor::describe_deadlock() const {
  const auto stuck = std::ranges::find_if(
      threads_, [](const Thread* thread) { return thread->state != State::kExited; });
  const Thread& first = **stuck;
  const Thread* other = first.state == State::kAtMeeting
                            ? missing(warp_of(first), first.meeting)
                            : *std::ranges::find_if(threads_, [](const Thread* thread) {
                                return thread->state == State::kAtMeeting;
                              });
  return place(blockIdx, first.index) + " " + describe_wait(first) + " for thread " +
         coordinates(other->index) + ", which " + describe_wait(*other);
}

}  // namespace emulation
