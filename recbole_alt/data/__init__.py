"""Atomic files to batches of texts: templates, prompts, masks, the dataset."""
