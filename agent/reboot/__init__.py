"""Reboots, one node of a pool at a time: what asks for one, what holds it back, the lock, the drain and the proof."""
