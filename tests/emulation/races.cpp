// SPDX-License-Identifier: Apache-2.0
#include "races.h"

#include <algorithm>
#include <bit>

namespace emulation {

void Races::begin_launch() {
  constexpr std::uint32_t kMany = 1u << 31;
  shadow_.trim();
  if (phase_ >= kMany) {
    shadow_.clear();
    phase_ = 0;
  }
  launch_phase_ = phase_ + 1;
  blocks_.clear();
}

void Races::begin_block(uint3 block, std::size_t threads, Bytes shared) {
  block_phase_ = ++phase_;
  blocks_.push_back({phase_, block});
  clocks_.assign(threads, Clocks{});
  shared_ = shared;
}

void Races::warp_barrier(unsigned int first, unsigned int lanes) {
  Clocks joint = {};
  for (unsigned int left = lanes; left != 0; left &= left - 1) {
    const auto lane = static_cast<unsigned int>(std::countr_zero(left));
    Clocks& known = clocks_[first + lane];
    ++known[lane];
    std::ranges::transform(joint, known, joint.begin(),
                           [](std::uint32_t a, std::uint32_t b) { return std::max(a, b); });
  }
  for (unsigned int left = lanes; left != 0; left &= left - 1) {
    clocks_[first + static_cast<unsigned int>(std::countr_zero(left))] = joint;
  }
}

std::optional<Race> Races::touch(unsigned int thread, Access access, Bytes bytes) {
  const Event now = event(phase_, thread, clocks_[thread][thread % kWarpLanes]);
  // A block's shared memory may lie where an earlier block's did.
  const std::uint32_t oldest = shared_.contain(bytes.begin) ? block_phase_ : launch_phase_;
  for (std::size_t i = 0; i < bytes.count; ++i) {
    const char* byte = static_cast<const char*>(bytes.begin) + i;
    Cell& cell = shadow_[reinterpret_cast<std::uintptr_t>(byte)];
    if (conflicts(cell.write, now, oldest)) return race(cell.write, Access::kWrite, byte);
    for (const Event& before : cell.atomics) {
      if (access != Access::kAtomic && conflicts(before, now, oldest)) {
        return race(before, Access::kAtomic, byte);
      }
    }
    for (const Event& before : cell.reads) {
      if (access != Access::kRead && conflicts(before, now, oldest)) {
        return race(before, Access::kRead, byte);
      }
    }
    if (access == Access::kWrite) {
      cell.write = now;
    } else {
      remember(access == Access::kRead ? cell.reads : cell.atomics, now, oldest);
    }
  }
  return std::nullopt;
}

bool Races::conflicts(const Event& before, const Event& now, std::uint32_t oldest) const {
  return before.phase >= oldest && !ordered(before, now);
}

bool Races::ordered(const Event& before, const Event& now) const {
  if (before.phase < block_phase_) return false;  // another block
  if (before.phase < now.phase || before.thread == now.thread) return true;
  const bool same_warp = before.thread / kWarpLanes == now.thread / kWarpLanes;
  return same_warp && clocks_[now.thread][before.thread % kWarpLanes] > before.clock;
}

// What comes after `now` comes also after what is ordered before it: that may be forgotten.
void Races::remember(EventPair& pair, const Event& now, std::uint32_t oldest) const {
  auto& [first, second] = pair;
  if (!conflicts(first, now, oldest)) {
    first = now;
    return;
  }
  // Of three, one of another warp or block says more: no __syncwarp orders it.
  const auto together = [](const Event& a, const Event& b) {
    return a.phase == b.phase && a.thread / kWarpLanes == b.thread / kWarpLanes;
  };
  if (!conflicts(second, now, oldest) || together(first, second)) second = now;
}

Race Races::race(const Event& before, Access access, const void* byte) const {
  const auto next = std::ranges::upper_bound(blocks_, before.phase, {}, &Block::phase);
  return {std::prev(next)->index, before.thread, access, byte};
}

}  // namespace emulation
