// SPDX-License-Identifier: Apache-2.0
// Names of functions, read from the symbol table of the file that they were loaded from.
#pragma once

#include <string>

namespace emulation {

// Readable name of the function that holds an address, or the address within its file where the
// file has no symbol for it. Kernels are internal to their file: the dynamic linker knows no name.
std::string function_at(const void* address);

}  // namespace emulation
