"""Pure parts: pooling, profiles, language, adapters. Standard library and NumPy only."""
