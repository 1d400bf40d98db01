"""What a user's earlier clicks would add to a plain model."""
