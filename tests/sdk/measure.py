"""What the broker adds to a client's whole time."""
