"""Training: alignment, finetuning, checkpoints, optimisers."""
