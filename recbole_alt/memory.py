"""The most memory that a part of a process had in use."""

from __future__ import annotations

import ctypes
import gc
import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch


class PeakMemory:
    """The most memory in use since it was made, where the models are.

    On a GPU that is what torch has allocated there; else it is the resident memory of the process, with the data and
    everything else it holds. Systems other than Linux know that of the process so far alone.

    Args:
        device: that the models are on.
    """

    def __init__(self, device: torch.device):
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            gc.collect()
            with suppress(OSError, AttributeError):  # glibc alone has it
                ctypes.CDLL(None).malloc_trim(0)  # what was freed before goes back to the system
            with suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")  # man proc_pid_clear_refs: begins a new high-water mark

    def mib(self) -> float:
        """So far, in MiB."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**20
        with suppress(OSError):
            lines = Path("/proc/self/status").read_text().splitlines()
            return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 2**10
        unit = 2**20 if sys.platform == "darwin" else 2**10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
