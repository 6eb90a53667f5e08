"""The audit of the cluster with the caller's own rights: collect a reduced view, then judge it check by check.

It only reads, and of Secrets only metadata. What may not be read makes the checks that need it unknown; the others
continue. RBAC is all that it sees of authorization: webhooks and a cloud's own authorizers do not show.
"""
