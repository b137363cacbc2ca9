"""Entropy coding (floor 1): exact probability tables and the coders that use them."""
