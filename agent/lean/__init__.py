"""What `run` does not keep in memory: every node pays for it, all the time (figures: docs/performance.md).

Three measures, none of which changes what a library or a class does:

- *put off* (later.py): libraries import much that the agent never calls. Importing such a module gives an empty one,
  and the first look into it loads it, in place and for everybody.
- *forget* (later.py): what only the start needs, the command line's parser, leaves when it has done its work.
- *share* (classes.py): every frozen dataclass has methods of its own, written for it. The agent's get common ones.

It refuses to do any of this by itself: the start of `run` asks for it, and every other command runs as Python does.
"""
