"""What the plugin reads from the API: Nodes, Leases, ConfigMaps and Pods as small rows of sanitized values.

Every string that a command, a page or an export shows has passed agent.plugin.cluster.values on its way into a row.
"""
