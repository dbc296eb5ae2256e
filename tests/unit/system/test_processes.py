from __future__ import annotations

import signal
import subprocess
import sys

import psutil
import pytest

CHILD = "import os; from rlpost.system.processes import end_with_parent; end_with_parent({number}, {parent}); print(os.getpid(), flush=True); import time; time.sleep(60)"
GUARD = """
import subprocess, sys, time, psutil
from rlpost.system.processes import kill_at_exit
other = subprocess.Popen(["sleep", "60"])
with kill_at_exit([psutil.Process(other.pid)]):
    print(other.pid, flush=True)
    time.sleep(float(sys.argv[1]))
print(other.wait(timeout=20))
"""
PARENT = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', sys.argv[1]]); time.sleep(60)"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_parent_takes_its_child_along(number: int) -> None:
    child = CHILD.format(number=int(number), parent=None)
    with subprocess.Popen([sys.executable, "-c", PARENT, child], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        orphan = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
        assert psutil.wait_procs([orphan], timeout=20)[1] == []


def test_a_parent_that_is_gone_already_counts() -> None:
    nobody = CHILD.format(number=int(signal.SIGKILL), parent=2**22 + 1)
    assert subprocess.run([sys.executable, "-c", nobody], check=False).returncode == -signal.SIGKILL


def test_a_killed_process_takes_along_processes_that_it_guards() -> None:
    with subprocess.Popen([sys.executable, "-c", GUARD, "60"], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        other = psutil.Process(int(parent.stdout.readline()))
        guards = [child for child in psutil.Process(parent.pid).children() if child.pid != other.pid]
        assert len(guards) == 1
        parent.kill()
        assert psutil.wait_procs([other, *guards], timeout=20)[1] == []


def test_the_end_of_the_block_takes_them_along_too() -> None:
    done = subprocess.run([sys.executable, "-c", GUARD, "0"], capture_output=True, text=True, check=True)
    assert done.stdout.split()[1] == str(-signal.SIGKILL)
