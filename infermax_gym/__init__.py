"""infermax_gym: LLM inference scheduling as an environment, with every scheduler and the optimum beside it.

Where to read first:

- `infermax_gym.engine`: the simulator (`simulate`, `EngineConfig`, `Policy`), one compiled scheduling algorithm.
- `infermax_gym.envs`: the Gymnasium environments, registered when this package is imported; `gym.make("InferMax-v0")`,
  or `gym.make("infermax_gym:InferMax-v0")` where nothing has imported it yet.
- `infermax_gym.cost` and `infermax_gym.workload`: what an iteration costs, where requests come from.
- `baselines`: the table of schedulers and the optimum; `agents`: learned ones; `infermax_gym.cli`: the command.
"""

from infermax_gym.envs import register_envs

__version__ = "0.1.0"

register_envs()

__all__ = ["__version__", "register_envs"]
