"""The routing decision as pure functions and values: standard library and NumPy only."""
