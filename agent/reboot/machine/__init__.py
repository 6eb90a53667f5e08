"""The reboot's state machine: one set of inputs in, one decision out. Pure: nothing here reads, writes or waits.

    decision = decide(inputs)

decide.py chooses by phase; each phase has a file of its own; transitions.py has the steps that several share.
"""
