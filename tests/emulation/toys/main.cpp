// SPDX-License-Identifier: Apache-2.0
#include "toy.h"

int main(int count, char** words) {
  for (int i = 1; i < count; ++i) toys::all().at(words[i])();
}
