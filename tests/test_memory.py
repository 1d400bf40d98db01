"""Peak memory is that of the part of a process that is asked about."""

from __future__ import annotations

import sys

import pytest
import torch

from recbole_alt.memory import PeakMemory

MIB = 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux begins a new high-water mark")
def test_what_was_freed_before_does_not_count() -> None:
    whole = PeakMemory(torch.device("cpu"))
    before = whole.mib()
    block = bytearray(b"x") * (400 * MIB)
    assert whole.mib() >= before + 390  # in use
    del block
    part = PeakMemory(torch.device("cpu"))
    assert part.mib() <= whole.mib() < before + 200  # one mark per process: the last one made counts
    block = bytearray(b"x") * (200 * MIB)
    del block
    assert part.mib() >= before + 190  # though it is free again
