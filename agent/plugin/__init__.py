"""`kubectl node-hardening`: what people type, at any hour. Reads what the agents show, and changes only when told yes.

The entry point is agent.plugin.main. It refuses to know a node from inside: everything it says stands on Node objects,
Leases, ConfigMaps and Pods.
"""
