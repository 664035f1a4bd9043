// SPDX-License-Identifier: Apache-2.0
#include "warp.h"

#include <array>
#include <bit>
#include <cstdio>

namespace emulation {
namespace {

// What a lane receives where CUDA leaves it undefined: NaN, read as a number.
constexpr std::uint64_t kUndefined = ~std::uint64_t{0};

constexpr std::array kNames = {"__syncwarp",     "__ballot_sync",    "__shfl_sync",
                               "__shfl_up_sync", "__shfl_down_sync", "__shfl_xor_sync"};

template <class Visit>
void each_lane(unsigned int lanes, Visit visit) {
  for (; lanes != 0; lanes &= lanes - 1) visit(static_cast<unsigned int>(std::countr_zero(lanes)));
}

bool contains(unsigned int lanes, unsigned int lane) {
  return lane < kWarpLanes && ((lanes >> lane) & 1) != 0;
}

}  // namespace

unsigned int lanes_of(Warp warp, unsigned int mask) {
  return warp.size() == kWarpLanes ? mask : mask & ((1u << warp.size()) - 1);
}

const Thread* missing(Warp warp, const Meeting& meeting) {
  for (unsigned int lanes = lanes_of(warp, meeting.mask); lanes != 0; lanes &= lanes - 1) {
    const Thread& other = *warp[static_cast<std::size_t>(std::countr_zero(lanes))];
    if (!other.waits_for(meeting)) return &other;
  }
  return nullptr;
}

void exchange(Warp warp, const Meeting& meeting) {
  const unsigned int lanes = lanes_of(warp, meeting.mask);
  if (meeting.operation == Operation::kSyncwarp) return;
  if (meeting.operation == Operation::kBallot) {
    std::uint64_t votes = 0;
    each_lane(lanes, [&](unsigned int lane) { votes |= warp[lane]->meeting.brought << lane; });
    each_lane(lanes, [&](unsigned int lane) { warp[lane]->received = votes; });
    return;
  }
  each_lane(lanes, [&](unsigned int lane) {
    const unsigned int source = warp[lane]->meeting.source;
    warp[lane]->received = contains(lanes, source) ? warp[source]->meeting.brought : kUndefined;
  });
}

unsigned int source_lane(Operation shuffle, unsigned int lane, unsigned int operand,
                         unsigned int width) {
  const unsigned int first = lane & ~(width - 1), last = first + width - 1;
  const unsigned int by = operand % kWarpLanes;
  switch (shuffle) {
    case Operation::kShuffleIndex:
      return first + (operand & (width - 1));
    case Operation::kShuffleUp:
      return lane >= first + by ? lane - by : lane;
    case Operation::kShuffleDown:
      return lane + by <= last ? lane + by : lane;
    default:  // kShuffleXor: lanes of lower groups may be asked, of higher ones not
      return (lane ^ by) <= last ? lane ^ by : lane;
  }
}

std::string describe(const Meeting& meeting) {
  std::array<char, 64> text;
  std::snprintf(text.data(), text.size(), "%s (mask 0x%08x)",
                kNames[static_cast<std::size_t>(meeting.operation)], meeting.mask);
  return text.data();
}

}  // namespace emulation
