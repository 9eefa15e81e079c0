"""A fleet in simulated time: the router's own decisions on servers whose step costs are given."""
