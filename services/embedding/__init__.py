"""The embedding and profiler service: text to vectors, requests to profiles."""
