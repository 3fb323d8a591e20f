"""The table of schedulers, by what they descend from; `infermax_gym.baselines.policies` puts it together."""
