"""The fault campaign: the real command, killed again and again, loses and repeats nothing.

`Campaign` runs it (``make torture`` in its long form, tests/whole/test_torture.py in a short one);
`FaultyWire` is between the command and the loopback provider and spoils what passes; `victim`
is the command under an operating system that fails.
"""

from .campaign import Campaign, Tally
from .wire import KINDS, FaultyWire

__all__ = ["KINDS", "Campaign", "FaultyWire", "Tally"]
