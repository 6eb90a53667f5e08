"""The coordinator's objects of the API server: the Node and the Leases, cached by watches."""
