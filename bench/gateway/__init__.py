"""What the gateway adds to a swap, and what it stands."""
