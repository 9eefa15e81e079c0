"""Fleet state, history and latency arithmetic: pure, with time as an argument."""
