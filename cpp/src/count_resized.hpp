#pragma once

#include <vector>

#include "sums.hpp"

namespace protoseg {

// Tallies [N, G, T, asked] of features of another size; see slab.hpp.
template <class T>
std::vector<Tally> count_resized(const Problem<T>& problem, const Boundaries& boundaries);

}  // namespace protoseg
