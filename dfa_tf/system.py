"""Facts about the machine and this process: the only readers of /proc and /sys.

Standard library only, so that commands can use these functions before TensorFlow is imported.
"""

import contextlib
import os
import pathlib
import platform
import resource
import sys

PROC = pathlib.Path("/proc")
CGROUP = pathlib.Path("/sys/fs/cgroup")


def cpu_name() -> str:
    """Returns the number of CPU threads and the model: "8 x AMD EPYC 7763".

    Without /proc/cpuinfo, or where it names no model, returns the name that Python's `platform`
    knows, without a count.
    """
    try:
        lines = (PROC / "cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [
        line.split(":", 1)[1].strip()
        for line in lines
        if line.startswith("model name") and ":" in line
    ]
    if not models:
        return platform.processor() or platform.machine()
    return f"{len(models)} x {models[0]}"


def cpu_has_bfloat16() -> bool:
    """Returns whether the CPU computes bfloat16 in hardware.

    Only x86-64 is examined: the answer is True elsewhere, and without /proc/cpuinfo.
    """
    try:
        flags = (PROC / "cpuinfo").read_text()
    except OSError:
        return True
    return "avx512_bf16" in flags or "amx_bf16" in flags or os.uname().machine != "x86_64"


def free_memory() -> int:
    """Returns the bytes of memory that are available, on the machine and in its container.

    Without /proc/meminfo, half of the physical memory counts as available. Without a memory limit
    in /sys/fs/cgroup, only the machine counts.
    """
    try:
        available = _kilobytes("meminfo", "MemAvailable")
    except (OSError, KeyError):
        available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    try:
        limit = int((CGROUP / "memory.max").read_text())
        used = int((CGROUP / "memory.current").read_text())
    except (OSError, ValueError):  # no such group, or its limit is "max"
        return available
    return min(available, limit - used)


def peak_memory() -> int:
    """Returns the peak resident memory of this process since its start, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def reset_peak_memory() -> None:
    """Restarts the peak that `peak_memory_since_reset` reports from the memory held now.

    Does nothing where /proc/self/clear_refs is missing or read-only.
    """
    with contextlib.suppress(OSError):
        # The value 5 resets the peak resident set size (man 5 proc).
        (PROC / "self" / "clear_refs").write_text("5")


def peak_memory_since_reset() -> int | None:
    """Returns the peak resident memory since `reset_peak_memory`, in bytes.

    Returns None where /proc/self/status is missing or does not report it.
    """
    try:
        return _kilobytes("self/status", "VmHWM")
    except (OSError, KeyError):
        return None


def _kilobytes(file, field):
    """Returns a field of a /proc file, "VmHWM: 1024 kB" for instance, in bytes."""
    lines = (PROC / file).read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(fields[field].split()[0]) * 1024
