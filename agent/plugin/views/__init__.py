"""How answers look at a terminal and as documents: tables, one node, the fleet, past reboots, live updates."""
