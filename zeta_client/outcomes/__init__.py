"""Tables of real outcomes: read, profiled, replayed."""
