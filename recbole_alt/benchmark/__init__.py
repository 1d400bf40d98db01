"""The evidence of campaigns, with its statistics."""
