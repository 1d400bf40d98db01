"""Objectives of the alignment stage: functions of tensors that hold no tower."""
