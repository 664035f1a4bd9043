// SPDX-License-Identifier: Apache-2.0
// Names of functions, read from the symbol table of the file that they were loaded from.
#pragma once

#include <cstdint>
#include <string>

namespace emulation {

// Readable name of the function that holds an address, or the address within its file where the
// file has no symbol for it. Kernels are internal to their file: the dynamic linker knows no name.
std::string function_at(const void* address);

// "library.so+0x1234": what addr2line turns into a line of code.
std::string location(const void* address);

std::string hexadecimal(std::uint64_t number);

}  // namespace emulation
