"""The compiled steps of a fleet.

`signals` (what a replica tells), `events` (who iterates next), `choose` (the scores), `run` (the loop over arrivals).
"""
