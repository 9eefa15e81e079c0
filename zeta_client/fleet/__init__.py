"""Run a whole fleet on this machine: which processes, kept alive, stopped in order."""
