"""The two towers, what aligns them, and the recommender."""
