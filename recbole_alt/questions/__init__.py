"""Questions to a finished run: what texts could add to its models, and what its alignment did."""
