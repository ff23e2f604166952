"""A long-lived process leaves no memory behind that it cannot use."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from realm.memory import KERNELS, NUM_KERNELS, limit_kernel_cache
from realm.planning import calibrate
from realm.training import loop

SCRIPT = """
import ctypes, sys
from realm.memory import return_free_memory

def resident():
    with open("/proc/self/statm") as stream:
        return int(stream.read().split()[1]) * 4096

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
blocks = [libc.malloc(100_000) for _ in range(1_000)]  # below what is mapped on its own
for block in blocks:
    ctypes.memset(block, 1, 100_000)
for block in blocks[:-1]:  # the last one holds the top of the heap
    libc.free(block)
before = resident()
return_free_memory(int(sys.argv[1]))
print(before - resident())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc, needs glibc")
@pytest.mark.parametrize(
    ("step", "least", "most"), [(4, 80 << 20, 1 << 40), (5, -(1 << 20), 1 << 20)]
)
def test_free_pages_go_back_to_the_system(step: int, least: int, most: int) -> None:
    code = [sys.executable, "-c", SCRIPT, str(step)]
    done = subprocess.run(code, capture_output=True, text=True, check=True)
    assert least <= int(done.stdout) <= most


HEAPS = """
import ctypes, re, threading
from realm.memory import share_one_heap

share_one_heap()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
blocks = []
threads = [threading.Thread(target=lambda: blocks.append(libc.malloc(50_000))) for _ in range(4)]
for thread in threads:
    thread.start()
    thread.join()
heap = next(line for line in open("/proc/self/maps") if "[heap]" in line)
start, end = (int(part, 16) for part in re.match(r"(\\w+)-(\\w+)", heap).groups())
print(sum(start <= block < end for block in blocks))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc, needs glibc")
def test_threads_share_one_heap() -> None:
    done = subprocess.run([sys.executable, "-c", HEAPS], capture_output=True, text=True, check=True)
    assert int(done.stdout) == 4
    own = HEAPS.replace("\nshare_one_heap()", "")
    done = subprocess.run([sys.executable, "-c", own], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 4


@pytest.mark.parametrize("name", KERNELS)
def test_few_kernels_are_kept_unless_the_user_says_more(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delenv(name, raising=False)
    limit_kernel_cache()
    assert os.environ[name] == str(NUM_KERNELS)
    monkeypatch.setenv(name, "500")
    limit_kernel_cache()
    assert os.environ[name] == "500"


@pytest.mark.parametrize(("system", "unit"), [("linux", 1024), ("darwin", 1)])
def test_the_peak_is_told_in_bytes_whatever_the_system_counts_in(
    monkeypatch: pytest.MonkeyPatch, system: str, unit: int
) -> None:
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(resource, "getrusage", lambda _: SimpleNamespace(ru_maxrss=3_000))
    assert loop.peak_memory_bytes() == calibrate.peak_memory_bytes() == 3_000 * unit
