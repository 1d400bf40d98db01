"""Many trainings: tuning them, comparing them, and what they show."""
