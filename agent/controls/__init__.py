"""The controls, a package each, listed in registry. Each observes, judges, plans; base applies and verifies.

Controls do not know each other and never talk to the API server.
"""
