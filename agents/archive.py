"""Archives of stable-baselines3. Reading one runs code from the file: only with the user's word."""

from __future__ import annotations

from pathlib import Path

from infermax_gym.agents.agent import Agent, AgentError
from infermax_gym.envs.scheduling.config import EnvConfig


def load_archive(path: Path) -> Agent:
    """A scorer from an archive that `MaskablePPO.save` wrote in training here.

    Raises:
        AgentError: the archive cannot be read, or holds another kind of model.
    """
    from sb3_contrib import MaskablePPO

    from infermax_gym.agents.policies_sb3 import ScorerPolicy

    try:
        model = MaskablePPO.load(path, device="cpu")
    except Exception as error:  # unpickling can raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise AgentError(f"{path}: cannot be read as an archive of MaskablePPO ({reason})") from None
    if not isinstance(model.policy, ScorerPolicy):
        raise AgentError(f"{path}: holds a {type(model.policy).__name__}; only ScorerPolicy can play here")
    config: EnvConfig = model.policy.config
    return Agent(path.stem, network=model.policy.network, config=config, card={"note": "archive of stable-baselines3"})
