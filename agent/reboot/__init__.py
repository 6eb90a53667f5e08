"""Reboots, one node of a pool at a time: what requires one, what blocks it, lock, drain and verification."""
