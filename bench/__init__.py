"""The figures of docs/performance.md, each in a module of its own: `python -m bench [NAME…]`.

It refuses to be a test: it measures what is here, and says what was to be reached. A slow machine is no defect.
"""
