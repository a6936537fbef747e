#pragma once

#include "kernels.hpp"

namespace protoseg {

// The table in use. Read once per call, so that a concurrent set_isa cannot mix two tables.
const Kernels& kernels();

}  // namespace protoseg
