"""What the rows mean: why a node is not hardened, what blocks its reboot, when a pool is done, what a change risks."""
