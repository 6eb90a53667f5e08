"""Keeps `run` small in memory, which every node pays for all the time (figures: docs/performance.md).

- lazy_import.defer: libraries import much that the agent never calls; such a module loads at its first use.
- lazy_import.unload: what only the start needs, the command line's parser, is unloaded afterwards.
- shared_methods: dataclasses share methods that are otherwise generated for each of them.

Only the start of `run` uses them; every other command runs as Python does.
"""
