// SPDX-License-Identifier: Apache-2.0
// The device functions, on behalf of the thread that runs.
#include <bit>

#include "cuda_device.h"
#include "multiprocessor.h"

namespace emulation {
namespace {

Operation operation(Shuffle kind) {
  constexpr Operation kOperations[] = {Operation::kShuffleIndex, Operation::kShuffleUp,
                                       Operation::kShuffleDown, Operation::kShuffleXor};
  return kOperations[static_cast<int>(kind)];
}

template <class T>
T add(T* address, T value, const void* code) {
  Multiprocessor::instance().touch(Access::kAtomic, {address, sizeof(T)}, code);
  const T before = *address;
  *address = before + value;
  return before;
}

}  // namespace

std::uint64_t shuffle(Shuffle kind, unsigned int mask, std::uint64_t bits, unsigned int operand,
                      int width) {
  Multiprocessor& block = Multiprocessor::instance();
  const auto lanes = static_cast<unsigned int>(width);
  if (!std::has_single_bit(lanes) || lanes > kWarpLanes) {
    block.fail("shuffles with width " + std::to_string(width) +
               ", expected a power of two up to 32");
  }
  const Operation name = operation(kind);
  return block.meet({name, mask, source_lane(name, block.running()->lane(), operand, lanes), bits});
}

}  // namespace emulation

using emulation::Multiprocessor;
using emulation::Operation;

void* emulated_shared_memory() { return Multiprocessor::instance().shared_memory(); }

void __syncthreads() { Multiprocessor::instance().barrier(); }

void __syncwarp(unsigned int mask) {
  Multiprocessor::instance().meet({Operation::kSyncwarp, mask, 0, 0});
}

unsigned int __ballot_sync(unsigned int mask, int predicate) {
  const std::uint64_t vote = predicate != 0;
  const auto votes = Multiprocessor::instance().meet({Operation::kBallot, mask, 0, vote});
  return static_cast<unsigned int>(votes);
}

float atomicAdd(float* address, float value) {
  return emulation::add(address, value, __builtin_return_address(0));
}
double atomicAdd(double* address, double value) {
  return emulation::add(address, value, __builtin_return_address(0));
}
unsigned int atomicAdd(unsigned int* address, unsigned int value) {
  return emulation::add(address, value, __builtin_return_address(0));
}
int atomicAdd(int* address, int value) {
  // A device wraps around; adding as unsigned keeps that defined.
  auto* const bits = reinterpret_cast<unsigned int*>(address);
  const auto addend = static_cast<unsigned int>(value);
  return static_cast<int>(emulation::add(bits, addend, __builtin_return_address(0)));
}
