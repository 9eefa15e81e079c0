"""Load on a fleet: who asks what and when, who answers, and what it came to."""
