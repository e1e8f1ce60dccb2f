"""Memory behind a descriptor: memfd_create(2), also in a Python that was built without it.

A Python that was built on a glibc older than 2.27, to run everywhere, lacks os.memfd_create and the constants
for seals. conda's Python does, and uv's did until 2026
(https://github.com/globus/globus-compute/issues/2204).
"""

from __future__ import annotations

import errno
import fcntl
import os

_CLOEXEC, _ALLOW_SEALING = 1, 2  # linux/memfd.h
_F_ADD_SEALS, _SEAL, _SHRINK, _GROW = 1033, 1, 2, 4  # linux/fcntl.h


def memory(name: str, flags: int = _CLOEXEC) -> int:
    """An empty file in memory, as a descriptor (close-on-exec). Raises OSError."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create(name, flags)
    import ctypes  # imported here: 5 ms, and most Pythons do not need it

    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "memfd_create"):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    fd: int = libc.memfd_create(name.encode(), flags)
    if fd < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return fd


def shared_memory(name: str, size: int) -> int:
    """A descriptor (close-on-exec) of `size` bytes of memory. Nobody can change the size: it is sealed.

    So a mapping of it stays valid. Raises OSError.
    """
    fd = memory(name, _CLOEXEC | _ALLOW_SEALING)
    try:
        os.ftruncate(fd, size)
        fcntl.fcntl(fd, _F_ADD_SEALS, _SHRINK | _GROW | _SEAL)
    except OSError as error:
        os.close(fd)
        hint = "; raise the limit of file sizes (ulimit -f)" if error.errno == errno.EFBIG else ""
        what = f"shared memory of {size / 1e6:.0f} MB"
        raise OSError(error.errno, f"{error.strerror}{hint}", what) from None
    return fd
