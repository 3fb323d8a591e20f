"""The compiled steps of a fleet.

`signals` (what a replica tells), `events` (who iterates next), `choose` (the scores), `rules` (routers that
are more than a score), `run` (the loop over arrivals).
"""
