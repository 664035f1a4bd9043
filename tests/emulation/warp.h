// SPDX-License-Identifier: Apache-2.0
// What the lanes of a warp do together: wait for each other, and exchange values.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "cuda_vectors.h"
#include "fiber.h"

namespace emulation {

inline constexpr unsigned int kWarpLanes = 32;

enum class Operation { kSyncwarp, kBallot, kShuffleIndex, kShuffleUp, kShuffleDown, kShuffleXor };

// What a lane came for. Lanes meet when all that the mask names came for the same.
struct Meeting {
  Operation operation;
  unsigned int mask;
  unsigned int source;    // the lane to receive from, in a shuffle
  std::uint64_t brought;  // the value in a shuffle, 0 or 1 in a ballot

  bool same(const Meeting& other) const {
    return operation == other.operation && mask == other.mask;
  }
};

enum class State { kReady, kAtBarrier, kAtMeeting, kExited };

struct Thread {
  unsigned int number = 0;  // in the block, x fastest
  uint3 index = {};
  Fiber fiber;
  State state = State::kExited;
  Meeting meeting = {};
  std::uint64_t received = 0;

  unsigned int lane() const { return number % kWarpLanes; }
  bool waits_for(const Meeting& other) const {
    return state == State::kAtMeeting && meeting.same(other);
  }
};

// The threads of one warp by lane. The last warp of a block may have fewer than 32.
using Warp = std::span<Thread* const>;

// The lanes named by the mask and there at all.
unsigned int lanes_of(Warp warp, unsigned int mask);

// The first lane that the meeting lacks, or null when it can take place.
const Thread* missing(Warp warp, const Meeting& meeting);

// Hands every lane what it receives.
void exchange(Warp warp, const Meeting& meeting);

// Lane that a shuffle receives from; `width` lanes each, a power of two, keep to themselves.
unsigned int source_lane(Operation shuffle, unsigned int lane, unsigned int operand,
                         unsigned int width);

std::string describe(const Meeting& meeting);

}  // namespace emulation
