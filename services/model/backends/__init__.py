"""What can run a decoder."""
