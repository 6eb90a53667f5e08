"""What SREs read: annotations, conditions, label, taint, Events and metrics.

It reports; it never decides, and never touches the host.
"""
