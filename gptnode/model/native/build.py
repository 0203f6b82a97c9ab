"""How the kernels are compiled when gptnode is installed; nothing imports this at run time.

They are optional: where there is no C compiler, the build goes on without them and torch's
operators do all the work.
"""

from __future__ import annotations

import sys
from pathlib import Path

from cffi import FFI

HERE = Path("gptnode/model/native")  # setuptools wants paths relative to its own file
BEGIN, END = "/* cffi: begin */", "/* cffi: end */"

# Sums may be reordered into vectors, but NaN and Inf stay what they are.
COMPILE = [
    "-O3",
    "-std=gnu11",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fno-signed-zeros",
    "-fassociative-math",
    "-fno-wrapv",  # Python's own -fwrapv would keep loops from becoming vectors
    "-Wno-psabi",  # vectors are passed between inlined functions alone
]
# The OpenMP that torch brings is the one that gets linked at run time: one team of threads.
OPENMP = ["-fopenmp"] if sys.platform.startswith("linux") else []

header = (HERE / "kernels.h").read_text()
ffibuilder = FFI()
ffibuilder.cdef(header[header.index(BEGIN) + len(BEGIN) : header.index(END)])
ffibuilder.set_source(
    "gptnode.model.native._kernels",
    '#include "kernels.h"',
    sources=[str(HERE / name) for name in sorted(path.name for path in HERE.glob("*.c"))],
    include_dirs=[str(HERE)],
    extra_compile_args=COMPILE + OPENMP,
    extra_link_args=OPENMP,
    optional=True,
)
