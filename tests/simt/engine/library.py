"""The package's extension module with the CUDA engine on the runtime: `_core`, without a GPU."""

from __future__ import annotations

import ctypes
import functools
import sysconfig
from pathlib import Path

import pybind11

from simt import build

HERE = Path(__file__).resolve().parent


def units() -> list[build.Unit]:
    """What it is made of: kernels and drivers are instrumented, the rest is as in the package."""
    defines = ('-DPROTOSEG_VERSION="simt"', '-DPROTOSEG_BUILD_TYPE="simt"')
    sources = build.ROOT / "cpp" / "src"
    includes = (f"-I{pybind11.get_include()}", f"-I{sysconfig.get_path('include')}")
    kernels = (*defines, "-DPROTOSEG_ISA=baseline", "-fno-exceptions", "-Wno-psabi", "-w")
    return [
        *(build.Unit(path) for path in sorted((build.ROOT / "cuda").glob("*.cu"))),
        *(
            build.Unit(path, instrumented=False, flags=defines)
            for path in sorted(sources.glob("*.cpp"))
            if path.name != "kernels.cpp"
        ),
        build.Unit(sources / "kernels.cpp", instrumented=False, flags=kernels),
        build.Unit(
            build.ROOT / "cpp" / "bindings" / "module.cpp",
            instrumented=False,
            flags=(*defines, *includes, "-fvisibility=hidden"),
        ),
        build.Unit(HERE / "memory.cpp", instrumented=False),
    ]


@functools.cache
def path() -> Path:
    """Compile what the checkout has now."""
    # Python's own functions are found when it is loaded.
    return build.library(*units(), flags=("-Wl,-z,undefs",))


@functools.cache
def memory() -> ctypes.CDLL:
    """The C interface of memory.cpp."""
    library = ctypes.CDLL(str(path()))
    pointer, size, text = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p
    for name, result, *arguments in (
        ("allocate", pointer, size, text, size),
        ("release", None, pointer),
        ("allocations", size),
        ("upload", None, pointer, pointer, size),
        ("download", text, pointer, pointer, size),
        ("seed", None, ctypes.c_uint64),
        ("clear", None),
        ("launches", size),
        ("launch", text, size),
    ):
        function = getattr(library, f"device_{name}")
        function.restype, function.argtypes = result, arguments
    return library
