"""The lock: Leases by compare-and-swap, who may take one next, and which nodes share a pool."""
