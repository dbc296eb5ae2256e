"""A tensor that is larger than the memory its comparison may take. The files are sparse: they take no disk space."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROWS, COLUMNS = 65_536, 8_192
MIB = 2**20
LIMIT = 512 * MIB

CODE = r"""
import json, re, resource, sys
from rlpost.sparsity.analysis import sparsity
import rlpost.sparsity.counting

fields = open("/proc/self/statm").read().split()
page = resource.getpagesize()
resource.setrlimit(resource.RLIMIT_DATA, (int(fields[5]) * page + int(sys.argv[3]),) * 2)
resident = int(fields[1]) * page
found = sparsity(sys.argv[1], sys.argv[2], matrices=None, mask_out=sys.argv[4])
# not ru_maxrss: a new process begins with the peak of the one that started it
peak = int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1]) * 1024
print(json.dumps([found.whole.entries, found.whole.figures["unchanged"].value, peak - resident, len(found.matrices)]))
"""


def write(file: Path, changed: list[int]) -> Path:
    size = 2 * ROWS * COLUMNS
    header = {"w": {"dtype": "BF16", "shape": [ROWS, COLUMNS], "data_offsets": [0, size]}}
    text = json.dumps(header).encode()
    with file.open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        out.truncate(8 + len(text) + size)
        for place in changed:
            os.pwrite(out.fileno(), b"\x80\x3f", 8 + len(text) + 2 * place)
    return file


def test_comparing_a_large_tensor_stays_below_a_memory_limit(tmp_path: Path) -> None:
    places = [0, 77, COLUMNS, ROWS * COLUMNS - 1]
    before, after = write(tmp_path / "a.safetensors", []), write(tmp_path / "b.safetensors", places)
    mask = tmp_path / "mask.safetensors"
    command = [sys.executable, "-c", CODE, str(before), str(after), str(LIMIT), str(mask)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    entries, unchanged, peak, looked_at = json.loads(done.stdout)
    assert before.stat().st_size + after.stat().st_size > 4 * LIMIT
    assert entries == ROWS * COLUMNS
    assert unchanged == 1 - len(places) / entries
    assert peak < LIMIT
    assert looked_at == 0, "too large to be held whole"
    bits = mask.read_bytes()
    assert bits.count(0) > len(bits) - 1000
    assert sum(byte.bit_count() for byte in bits[-entries // 8 :]) == len(places)
