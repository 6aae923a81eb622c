"""What the package reads from /proc and /sys, with and without those files."""

import platform
import subprocess
import sys

import numpy as np
import pytest

from dfa_tf import system

GIB = 2**30


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Replaces /proc and the memory group by empty folders. Returns a function to write to them."""
    monkeypatch.setattr(system, "PROC", tmp_path / "proc")
    monkeypatch.setattr(system, "CGROUP", tmp_path / "cgroup")

    def write(path, text):
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    return write


def test_free_memory_is_positive_on_this_machine():
    assert system.free_memory() > 0


def test_free_memory_is_what_the_machine_has_available(machine):
    machine("proc/meminfo", "MemTotal: 9 kB\nMemAvailable:    3145728 kB\n")
    assert system.free_memory() == 3 * GIB


def test_free_memory_is_limited_by_the_container(machine):
    machine("proc/meminfo", "MemAvailable: 3145728 kB\n")
    machine("cgroup/memory.max", f"{2 * GIB}\n")
    machine("cgroup/memory.current", f"{GIB}\n")
    assert system.free_memory() == GIB


def test_container_without_limit_does_not_limit_free_memory(machine):
    machine("proc/meminfo", "MemAvailable: 3145728 kB\n")
    machine("cgroup/memory.max", "max\n")
    machine("cgroup/memory.current", f"{GIB}\n")
    assert system.free_memory() == 3 * GIB


@pytest.mark.usefixtures("machine")
def test_free_memory_without_meminfo_is_half_of_the_physical_memory(monkeypatch):
    sizes = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": GIB // 4096}
    monkeypatch.setattr(system.os, "sysconf", sizes.get)
    assert system.free_memory() == GIB // 2


def test_cpu_name_is_thread_count_and_model(machine):
    thread = "processor : 0\nmodel name\t: Fast CPU @ 2: GHz\nflags : fpu\n\n"
    machine("proc/cpuinfo", 2 * thread)
    assert system.cpu_name() == "2 x Fast CPU @ 2: GHz"


@pytest.mark.parametrize(("processor", "expected"), [("M3", "M3"), ("", "arm64")])
@pytest.mark.parametrize("cpuinfo", [None, "processor : 0\n"])
def test_cpu_name_without_a_model_is_the_platforms(
    machine, monkeypatch, cpuinfo, processor, expected
):
    if cpuinfo:
        machine("proc/cpuinfo", cpuinfo)
    monkeypatch.setattr(platform, "processor", lambda: processor)
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert system.cpu_name() == expected


@pytest.mark.parametrize(
    ("flags", "architecture", "expected"),
    [
        ("fpu avx512f", "x86_64", False),
        ("fpu avx512_bf16", "x86_64", True),
        ("fpu amx_bf16 amx_tile", "x86_64", True),
        ("fp asimd", "aarch64", True),
    ],
)
def test_bfloat16_support_follows_the_cpu_flags(
    machine, monkeypatch, flags, architecture, expected
):
    machine("proc/cpuinfo", f"flags : {flags}\n")
    name = type("Name", (), {"machine": architecture})
    monkeypatch.setattr(system.os, "uname", name)
    assert system.cpu_has_bfloat16() is expected


@pytest.mark.usefixtures("machine")
def test_bfloat16_support_is_assumed_without_cpuinfo():
    assert system.cpu_has_bfloat16() is True


def test_peak_memory_covers_what_was_allocated():
    array = np.ones(64 * 2**20, np.uint8)
    assert system.peak_memory() > array.nbytes


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_reset_peak_memory_forgets_what_was_freed():
    # In a process of its own: freed memory of a large process may stay resident.
    code = """
import mmap
from dfa_tf import system
block = mmap.mmap(-1, 256 * 2**20)
block.write(b"x" * len(block))
before = system.peak_memory_since_reset()
block.close()
system.reset_peak_memory()
print(before, system.peak_memory_since_reset())
"""
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, text=True
    )
    before, after = map(int, output.stdout.split())
    if after == before:
        pytest.skip("this kernel does not reset the peak")
    assert after < before - 200 * 2**20


def test_peak_memory_since_reset_reads_the_high_water_mark(machine):
    machine("proc/self/status", "Name:\tpython\nVmHWM:\t    2048 kB\nVmRSS:\t 1024 kB\n")
    assert system.peak_memory_since_reset() == 2 * 2**20


def test_peak_memory_since_reset_is_none_without_the_file_or_field(machine):
    assert system.peak_memory_since_reset() is None
    machine("proc/self/status", "Name:\tpython\n")
    assert system.peak_memory_since_reset() is None


def test_reset_writes_to_clear_refs_and_tolerates_its_absence(machine):
    system.reset_peak_memory()
    file = machine("proc/self/clear_refs", "")
    system.reset_peak_memory()
    assert file.read_text() == "5"


def test_module_does_not_import_tensorflow():
    code = "import sys; from dfa_tf import system; assert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
