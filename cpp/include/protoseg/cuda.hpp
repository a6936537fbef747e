// What is known of CUDA in this build. Absence is a normal state, not an error.
#pragma once

#include <string>

namespace protoseg {

bool cuda_compiled();

// One sentence: what was compiled, or why CUDA is not available.
std::string cuda_status();

}  // namespace protoseg
