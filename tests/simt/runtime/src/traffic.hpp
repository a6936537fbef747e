// Counts what reaches memory. The lanes of a warp that execute the same access the n-th time since
// the last synchronisation of the warp make one request.
#pragma once

#include "memory.hpp"
#include "race.hpp"

namespace simt {

void begin_traffic();
void end_traffic();
void begin_segment(Warp& warp);
void end_segment(Warp& warp);

// Counts an access and returns its site, an index of the place in the code.
std::uint32_t count_access(const Thread& thread, std::uintptr_t address, unsigned bytes,
                           Access access, bool shared, const void* code);

const void* site_code(std::uint32_t site);
std::string site_line(std::uint32_t site);

}  // namespace simt
