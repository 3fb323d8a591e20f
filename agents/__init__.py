"""Learned schedulers: how they are trained, stored and run.

Reading order: `networks` (what is learned), `play` (running it), `storage` (files), `imitation`, `ppo` and
`evolution` (how it is learned). `train.py` puts them together; docs/agents.md says what came out.
"""

from infermax_gym.agents.agent import Agent, AgentError
from infermax_gym.agents.storage import list_agents, load_agent, save_agent

__all__ = ["Agent", "AgentError", "list_agents", "load_agent", "save_agent"]
