"""The rows of the table of schedulers, by what they descend from; `baselines.policies` puts them together."""
