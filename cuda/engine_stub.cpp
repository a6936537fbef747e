// The CUDA side of the interface in a build without CUDA.
#include "protoseg/cuda.hpp"

namespace protoseg {

bool cuda_compiled() { return false; }

std::string cuda_status() { return "built without CUDA"; }

}  // namespace protoseg
