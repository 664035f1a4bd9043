// SPDX-License-Identifier: Apache-2.0
// Finds two threads that touch the same byte with nothing ordering them, by CUDA's rules.
//
// Within a block, __syncthreads orders all that lies on its two sides, and __syncwarp what the
// lanes that it names did. Blocks of one launch are in no order; one launch follows another.
// An access is a happens-before matter, so that a race is found in any order of execution.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "cuda_vectors.h"
#include "shadow.h"
#include "warp.h"

namespace emulation {

#if defined(RTDETR_OPS_EMULATOR_RACES)
inline constexpr bool kFindRaces = true;
#else
inline constexpr bool kFindRaces = false;
#endif

enum class Access { kRead, kWrite, kAtomic };

struct Bytes {
  const void* begin;
  std::size_t count;

  bool contain(const void* address) const {
    const auto offset =
        reinterpret_cast<std::uintptr_t>(address) - reinterpret_cast<std::uintptr_t>(begin);
    return offset < count;
  }
};

// The earlier one of two accesses, and the byte that both touched.
struct Race {
  uint3 block;
  unsigned int thread;
  Access access;
  const void* byte;
};

class Races {
 public:
  void begin_launch();
  void begin_block(uint3 block, std::size_t threads, Bytes shared);

  // All threads of the block have met.
  void barrier() { ++phase_; }

  // These lanes of the warp of this first thread have met.
  void warp_barrier(unsigned int first, unsigned int lanes);

  // What a thread is about to do. Returns the first race that this makes.
  std::optional<Race> touch(unsigned int thread, Access access, Bytes bytes);

 private:
  struct Block {
    std::uint32_t phase;  // its first one
    uint3 index;
  };

  // What a lane knows: for each lane of its warp, the number of warp barriers of that lane that
  // lie before now.
  using Clocks = std::array<std::uint32_t, kWarpLanes>;

  bool conflicts(const Event& before, const Event& now, std::uint32_t oldest) const;
  bool ordered(const Event& before, const Event& now) const;
  void remember(EventPair& pair, const Event& now, std::uint32_t oldest) const;
  Race race(const Event& before, Access access, const void* byte) const;

  Shadow shadow_;
  std::vector<Clocks> clocks_;  // by thread of this block
  std::vector<Block> blocks_;   // of this launch, as they ran
  Bytes shared_ = {};

  // Counts block begins and barriers, so that a phase belongs to one block. Zero: never.
  std::uint32_t phase_ = 0;
  std::uint32_t launch_phase_ = 0;
  std::uint32_t block_phase_ = 0;
};

}  // namespace emulation
