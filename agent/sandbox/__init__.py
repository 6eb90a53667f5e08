"""The embedded default: an API server emulator and throw-away node roots, for the demo and for tests.

Nothing is imported here, so that a part that needs no HTTP server does not ask for the ``sandbox`` extra.
The emulator is ``agent.sandbox.server.Sandbox``.
"""
