"""The embedded Lean as a ``lean`` executable: ``python lean_executable.py LIBRARY SEARCH_PATH [arguments of lean]``."""

from __future__ import annotations

import ctypes
import os
import sys


def main() -> None:
    library, os.environ["LEAN_PATH"], *arguments = sys.argv[1:]
    if "LEAN_PATH_EXTRA" in os.environ:
        os.environ["LEAN_PATH"] += os.pathsep + os.environ["LEAN_PATH_EXTRA"]
    # Lean's interpreter finds its own native code among the global symbols.
    lean = ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
    words = [b"lean", *(word.encode() for word in arguments)]
    status = lean.lean_main(len(words), (ctypes.c_char_p * (len(words) + 1))(*words, None))
    ctypes.CDLL(None).fflush(None)
    os._exit(status & 255)


if __name__ == "__main__":
    main()
