// SPDX-License-Identifier: Apache-2.0
// A file of its own: no kernel is instrumented for the question, only for the fault.
#include "planted.h"

#include <cstdlib>

bool planted(int fault) {
  static const char* const chosen = std::getenv("RTDETR_OPS_PLANTED_FAULT");
  static const int row = chosen == nullptr ? -1 : std::atoi(chosen);
  return fault == row;
}
