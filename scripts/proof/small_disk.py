"""A disk of a few mebibytes that this process and its children alone see, to be filled up.

A tmpfs in a mount namespace of our own: nobody else sees it, and it is gone with the last process
that does, however that ends. Linux, and root; knows no gptnode.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from contextlib import suppress
from pathlib import Path

__all__ = ["PAGE_BYTES", "SmallDisk", "own_mounts"]

CLONE_NEWNS = 0x00020000
PAGE_BYTES = 4096  # what a tmpfs gives and takes
BALLAST = "ballast"


def own_mounts() -> str | None:
    """From here on, mounts of this process are its own; what is in the way of that, or None."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "unshare"):
        return "this system has no mount namespaces"
    if libc.unshare(CLONE_NEWNS) != 0:
        reason = os.strerror(ctypes.get_errno())
        return f"a mount namespace can't be made here: {reason}"
    done = _mount("--make-rprivate", "/")
    return None if done.returncode == 0 else f"mount: {done.stderr.strip()}"


class SmallDisk:
    """A disk at ``path``; a context manager."""

    def __init__(self, path: Path, size_bytes: int) -> None:
        """Nothing is mounted yet; ``path`` is an empty folder."""
        self.path = path
        self._size_bytes = size_bytes

    def __enter__(self) -> SmallDisk:
        """Mount it; RuntimeError with what `mount` said."""
        done = _mount("-t", "tmpfs", "-o", f"size={self._size_bytes}", "gptnode", str(self.path))
        if done.returncode != 0:
            raise RuntimeError(f"mount: {done.stderr.strip()}")
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Take it away, even while a process still has a file on it open."""
        subprocess.run(["umount", "--lazy", str(self.path)], capture_output=True, check=False)

    @property
    def free_bytes(self) -> int:
        """What fits on it now."""
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize

    def fill(self, leave_pages: int = 0) -> None:
        """Fill it up, but for so many pages."""
        self.clear()
        with (self.path / BALLAST).open("wb", buffering=0) as file, suppress(OSError):
            while self.free_bytes > leave_pages * PAGE_BYTES:
                file.write(bytes(PAGE_BYTES))

    def clear(self) -> None:
        """Give back what `fill` took."""
        (self.path / BALLAST).unlink(missing_ok=True)

    def files(self) -> dict[str, bytes | None]:
        """All that is on it, with its bytes, None for a folder; without the ballast."""
        found: dict[str, bytes | None] = {}
        for folder, folders, names in os.walk(self.path):
            here = Path(folder)
            found |= {str((here / name).relative_to(self.path)): None for name in folders}
            for name in names:
                with suppress(OSError):  # it may be gone again
                    found[str((here / name).relative_to(self.path))] = (here / name).read_bytes()
        return {name: data for name, data in found.items() if name != BALLAST}


def _mount(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["mount", *argv], capture_output=True, text=True, check=False)
