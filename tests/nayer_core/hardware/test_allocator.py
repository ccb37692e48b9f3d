"""Freed memory stays with the process, where that is promised."""

import subprocess
import sys

PROGRAM = """
import resource, sys
from nayer_core.hardware.allocator import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

if sys.argv[1] == "kept":
    keep_freed_memory()
import torch
size = 64 * 2**20  # far above what glibc keeps of its own accord
for _ in range(32):  # until every size has found its place
    torch.ones(size, dtype=torch.uint8)
before = faults()
for _ in range(8):
    torch.ones(size, dtype=torch.uint8)
print(faults() - before)
"""


def page_faults(how: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True, timeout=60
    )
    return int(done.stdout)


def test_a_step_does_not_pay_for_its_memory_again() -> None:
    assert page_faults("kept") < page_faults("as it is") / 10
