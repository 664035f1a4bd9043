// SPDX-License-Identifier: Apache-2.0
#include "symbols.h"

#include <cxxabi.h>
#include <dlfcn.h>
#include <link.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <vector>

namespace emulation {
namespace {

using Header = ElfW(Ehdr);
using Section = ElfW(Shdr);
using Symbol = ElfW(Sym);

// Where something lies in the file that it was loaded from.
struct Place {
  const char* path;
  std::uint64_t address;
};

std::optional<Place> locate(const void* address) {
  Dl_info info;
  if (dladdr(address, &info) == 0) return std::nullopt;
  const auto* header = static_cast<const Header*>(info.dli_fbase);
  const auto base = reinterpret_cast<std::uint64_t>(info.dli_fbase);
  const auto loaded = reinterpret_cast<std::uint64_t>(address);
  return Place{info.dli_fname, header->e_type == ET_DYN ? loaded - base : loaded};
}

std::vector<char> read_file(const char* path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

template <class T>
const T* at(const std::vector<char>& file, std::uint64_t offset) {
  return reinterpret_cast<const T*>(file.data() + offset);
}

// Mangled name of the function at an address of the file, or null.
const char* find_symbol(const std::vector<char>& file, std::uint64_t address) {
  const auto* header = at<Header>(file, 0);
  const auto* sections = at<Section>(file, header->e_shoff);
  for (int i = 0; i < header->e_shnum; ++i) {
    const Section& table = sections[i];
    if (table.sh_type != SHT_SYMTAB) continue;
    const auto* symbols = at<Symbol>(file, table.sh_offset);
    for (std::uint64_t k = 0; k < table.sh_size / sizeof(Symbol); ++k) {
      const Symbol& symbol = symbols[k];
      const bool function = (symbol.st_info & 0xf) == STT_FUNC;
      if (function && address >= symbol.st_value && address < symbol.st_value + symbol.st_size) {
        return at<char>(file, sections[table.sh_link].sh_offset + symbol.st_name);
      }
    }
  }
  return nullptr;
}

std::string demangle(const char* name) {
  char* readable = abi::__cxa_demangle(name, nullptr, nullptr, nullptr);
  const std::string result = readable == nullptr ? name : readable;
  std::free(readable);
  return result;
}

}  // namespace

std::string function_at(const void* address) {
  const std::optional<Place> place = locate(address);
  if (!place) return hexadecimal(reinterpret_cast<std::uint64_t>(address));
  const std::vector<char> file = read_file(place->path);
  const char* name = find_symbol(file, place->address);
  return name == nullptr ? location(address) : demangle(name);
}

std::string location(const void* address) {
  const std::optional<Place> place = locate(address);
  if (!place) return hexadecimal(reinterpret_cast<std::uint64_t>(address));
  return std::filesystem::path(place->path).filename().string() + "+" + hexadecimal(place->address);
}

std::string hexadecimal(std::uint64_t number) {
  std::array<char, 32> text;
  std::snprintf(text.data(), text.size(), "%#llx", static_cast<unsigned long long>(number));
  return text.data();
}

}  // namespace emulation
