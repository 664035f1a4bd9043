// SPDX-License-Identifier: Apache-2.0
// What is remembered of every byte that kernels touch.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <unordered_map>

namespace emulation {

// Who did something, and when.
struct Event {
  std::uint32_t phase;  // of Races; zero: nothing has happened
  std::uint32_t thread : 10;
  std::uint32_t clock : 22;  // warp barriers that the thread had passed in its block
};

constexpr Event event(std::uint32_t phase, std::uint32_t thread, std::uint32_t clock) {
  return {phase, thread & 0x3ff, clock & 0x3fffff};
}

// Of events that nothing orders, two: enough for a later one to conflict with either.
using EventPair = std::array<Event, 2>;

struct Cell {
  Event write;
  EventPair atomics;
  EventPair reads;
};

class Shadow {
 public:
  Cell& operator[](std::uintptr_t address) {
    const std::uintptr_t number = address / kPageBytes;
    Recent& recent = recent_[number % recent_.size()];
    if (recent.page == nullptr || recent.number != number) recent = {number, page(number)};
    return (*recent.page)[address % kPageBytes];
  }

  // Gives memory back when there is much of it; all cells may be lost.
  void trim() {
    if (pages_.size() > kPagesToKeep) clear();
  }
  void clear() {
    recent_ = {};
    pages_.clear();
  }

 private:
  static constexpr std::size_t kPageBytes = 1024, kPagesToKeep = 4096;  // of 40 KiB each
  using Page = std::array<Cell, kPageBytes>;
  struct Recent {
    std::uintptr_t number;
    Page* page;
  };

  Page* page(std::uintptr_t number) {
    std::unique_ptr<Page>& page = pages_[number];
    if (page == nullptr) page = std::make_unique<Page>();
    return page.get();
  }

  std::unordered_map<std::uintptr_t, std::unique_ptr<Page>> pages_;
  std::array<Recent, 256> recent_ = {};
};

}  // namespace emulation
