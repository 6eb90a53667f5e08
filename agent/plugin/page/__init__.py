"""The page of `report`: one self-contained HTML document of the fleet, to be mailed or attached.

It refuses to fetch anything, to need a script for reading, to let anything on a Node become markup, and to colour
anything green that is unknown.
"""
