"""The peak memory of a part of a process."""

import ctypes
import gc
import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch


class PeakMemory:
    """The peak memory since this object was made, where the models are.

    On a GPU that is what torch has allocated there; on a processor it is the resident memory of the process, with the
    data and everything else in it, which only Linux can measure from a given moment on.

    Args:
        device: The device of the models.
    """

    def __init__(self, device: torch.device):
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            gc.collect()
            with suppress(OSError, AttributeError):  # only glibc has it
                ctypes.CDLL(None).malloc_trim(0)  # what was freed before goes back to the system
            with suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")  # man proc_pid_clear_refs: begins a new high-water mark

    def mib(self) -> float:
        """The peak so far, in MiB."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**20
        with suppress(OSError):
            lines = Path("/proc/self/status").read_text().splitlines()
            return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 2**10
        unit = 2**20 if sys.platform == "darwin" else 2**10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
