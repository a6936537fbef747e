# Adds the CUDA engine to the library, or what stands in for it; see docs/gpu.md.

set(PROTOSEG_CUDA AUTO CACHE STRING "The CUDA engine: AUTO (if nvcc is found), ON or OFF")
set_property(CACHE PROTOSEG_CUDA PROPERTY STRINGS AUTO ON OFF)
string(TOUPPER "${PROTOSEG_CUDA}" wanted)
if(NOT wanted MATCHES "^(AUTO|ON|OFF|TRUE|FALSE|1|0|YES|NO)$")
  message(FATAL_ERROR "PROTOSEG_CUDA must be AUTO, ON or OFF, got ${PROTOSEG_CUDA}.")
endif()

set(found FALSE)
if(wanted STREQUAL "AUTO" OR wanted)
  set(chosen TRUE)
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES AND NOT DEFINED ENV{CUDAARCHS})
    # Enabling the language would otherwise put a choice of its own into the cache, which the next
    # configuration would take for the user's.
    set(chosen FALSE)
    set(CMAKE_CUDA_ARCHITECTURES 75)
  endif()
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    enable_language(CUDA)
    set(found TRUE)
  endif()
endif()

# 11.8 knows sm_90 and its clusters.
if(found AND CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 11.8)
  set(problem "nvcc ${CMAKE_CUDA_COMPILER_VERSION} is too old, 11.8 or newer is needed")
elseif(NOT found)
  set(problem "nvcc was not found")
endif()

if(found AND NOT problem)
  if(NOT chosen)
    # Every architecture from Turing on, and PTX of the newest for those to come.
    set(architectures 75 80 86 89 90)
    if(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 12.8)
      list(APPEND architectures 100 120)
    endif()
    list(POP_BACK architectures newest)
    list(TRANSFORM architectures APPEND "-real")
    set(CMAKE_CUDA_ARCHITECTURES ${architectures} ${newest})
  endif()
  message(STATUS "CUDA: nvcc ${CMAKE_CUDA_COMPILER_VERSION}, for ${CMAKE_CUDA_ARCHITECTURES}")

  target_sources(protoseg PRIVATE cuda/engine.cu cuda/gradients.cu cuda/guide.cu cuda/guide_sizes.cu
                                  cuda/score.cu)
  target_include_directories(protoseg PRIVATE cuda)
  # The runtime is linked in: the package imports without a driver and needs no toolkit.
  set_target_properties(
    protoseg
    PROPERTIES CUDA_ARCHITECTURES "${CMAKE_CUDA_ARCHITECTURES}"
               CUDA_STANDARD 17
               CUDA_STANDARD_REQUIRED ON
               CUDA_RUNTIME_LIBRARY Static
               CUDA_VISIBILITY_PRESET hidden)
  # Contraction decides pixels, as on the CPU. Compressed: there is a copy per architecture.
  target_compile_options(
    protoseg PRIVATE "$<$<COMPILE_LANGUAGE:CUDA>:-fmad=false;-Xfatbin=-compress-all>"
                     "$<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-ffp-contract=off,-Wall>")
  string(REGEX REPLACE "-real|-virtual" "" listed "${CMAKE_CUDA_ARCHITECTURES}")
  string(REPLACE ";" " " listed "${listed}")
  set_source_files_properties(
    cuda/engine.cu PROPERTIES COMPILE_DEFINITIONS PROTOSEG_CUDA_ARCHITECTURES="${listed}")
elseif(NOT wanted STREQUAL "AUTO" AND wanted)
  message(FATAL_ERROR "PROTOSEG_CUDA=ON, but ${problem}. Set CMAKE_CUDA_COMPILER to nvcc, or build "
                      "for the CPU alone with PROTOSEG_CUDA=OFF.")
else()
  if(wanted STREQUAL "AUTO")
    message(STATUS "CUDA: none, ${problem}")
  else()
    message(STATUS "CUDA: none, PROTOSEG_CUDA=OFF")
  endif()
  target_sources(protoseg PRIVATE cuda/engine_stub.cpp)
endif()
