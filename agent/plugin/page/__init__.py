"""The page of `report`: one HTML document of the fleet that needs nothing but itself, to be mailed or attached.

It refuses to fetch anything, to need a script for reading, to let what stands on a Node become markup, and to colour
anything green that could not be told.
"""
