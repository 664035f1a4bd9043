// SPDX-License-Identifier: Apache-2.0
#include "probe.h"

int main(int count, char** words) {
  for (int i = 1; i < count; ++i) probes::all().at(words[i])();
}
