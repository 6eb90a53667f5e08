"""A changed policy reaches the canaries first, and the other nodes once it has worked there.

No controller and no lock: every agent that holds a changed policy back reads the canaries by itself, with back-off.
"""
