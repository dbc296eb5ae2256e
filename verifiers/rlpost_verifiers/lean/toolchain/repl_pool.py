"""Slots for REPL processes: a check takes one, and leaves the process in it for the next."""

from __future__ import annotations

import queue
import threading

from rlpost_verifiers.lean.toolchain.repl_process import ReplProcess


class Slot:
    """Room for one process, used by one thread at a time; only the pool changes its process."""

    def __init__(self) -> None:
        self.process: ReplProcess | None = None


class Pool:
    """A fixed number of slots."""

    def __init__(self, size: int) -> None:
        self._lock = threading.Lock()
        self._closed = False
        self._slots = [Slot() for _ in range(size)]
        # Last in, first out: a light load keeps few processes up.
        self._free: queue.LifoQueue[Slot] = queue.LifoQueue()
        for slot in self._slots:
            self._free.put(slot)

    def take(self) -> Slot:
        """A free slot; waits until there is one."""
        return self._free.get()

    def put(self, slot: Slot) -> None:
        """Give a slot back."""
        if self._closed:
            self.drop(slot)
        self._free.put(slot)

    def fill(self, slot: Slot, process: ReplProcess) -> None:
        """Put a new process into a slot that the caller has taken."""
        with self._lock:
            slot.process = process
            if self._closed:
                process.kill()

    def drop(self, slot: Slot) -> None:
        """End the process in a slot that the caller has taken."""
        with self._lock:
            process, slot.process = slot.process, None
        if process is not None:
            process.close()

    def pids(self) -> list[int]:
        """Process ids of the processes that are up."""
        with self._lock:
            return [slot.process.pid for slot in self._slots if slot.process is not None]

    def close(self) -> None:
        """End every process, and each that is made from now on.

        A process in use is only killed: the thread that uses it finds it dead and cleans up.
        """
        with self._lock:
            self._closed = True
            for slot in self._slots:
                if slot.process is not None:
                    slot.process.kill()
        free: list[Slot] = []
        while not self._free.empty():
            try:
                free.append(self._free.get_nowait())
            except queue.Empty:
                break
        for slot in free:
            self.put(slot)
