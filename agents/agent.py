"""What a trained policy is: a policy of the table or a network, with a card that says where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from infermax_gym.engine import EngineConfig, Information, Policy, SimulationResult, simulate
from infermax_gym.envs.scheduling.config import EnvConfig
from infermax_gym.workload import Workload

if TYPE_CHECKING:
    from infermax_gym.agents.controller import Controller
    from infermax_gym.agents.networks import ScorerNetwork
    from infermax_gym.agents.selector import Selector

_INFORMATION = {"none": Information.NONE, "noisy": Information.PREDICTED, "oracle": Information.ORACLE}


class AgentError(ValueError):
    """A trained policy cannot be read or used; one line that says what is wrong."""


@dataclass(frozen=True, eq=False)
class Agent:
    """A trained policy: exactly one of `policy`, `controller`, `selector` and `network` is there.

    Attributes:
        name: short name, kebab-case.
        policy: kind "policy": a setting of the scheduling algorithm, which runs in the kernel.
        controller: kind "controller": a small network that sets the knobs of the algorithm every few seconds.
        selector: kind "selector": a small network that says which of a few policies serves next, on any engine.
        network: kind "scorer": a network that decides in `InferMax-v0`.
        config: of a scorer, the environment it was trained in: slots, chunk budgets, `decide`, `information`, `base`.
        card: what else its file says: training, versions, held-out scores.
    """

    name: str
    policy: Policy | None = None
    controller: Controller | None = None
    selector: Selector | None = None
    network: ScorerNetwork | None = None
    config: EnvConfig | None = None
    card: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        parts = (self.policy, self.controller, self.selector, self.network)
        given = sum(part is not None for part in parts)
        if given != 1 or (self.network is None) != (self.config is None):
            raise AgentError(
                "an agent is a policy of the table, a controller, a selector, or a scorer (network and config)"
            )

    @property
    def kind(self) -> str:
        """Policy, controller, selector or scorer."""
        if self.policy is not None:
            return "policy"
        if self.controller is not None:
            return "controller"
        return "scorer" if self.selector is None else "selector"

    @property
    def information(self) -> Information:
        """What it knows about output lengths."""
        if self.policy is not None:
            return self.policy.information
        if self.controller is not None:
            return self.controller.information
        if self.selector is not None:
            return self.selector.information
        assert self.config is not None
        return _INFORMATION[self.config.information]

    @property
    def note(self) -> str:
        """One line for lists."""
        return str(self.card.get("note", ""))

    def play(
        self, workload: Workload, engine: EngineConfig, *, seed: int = 0, record_schedule: bool = False
    ) -> SimulationResult:
        """Serve a workload to its end.

        Args:
            workload: the requests.
            engine: the replica.
            seed: of the run: errors of predicted lengths come from it.
            record_schedule: keep every iteration.
        """
        from infermax_gym.baselines.predict import predictions

        predictor = Policy(self.name, information=self.information, prediction_sigma=self.prediction_sigma or 0.0)
        predicted = predictions(self.policy or predictor, workload, seed)
        return self.serve(workload, engine, predicted=predicted, record_schedule=record_schedule)

    @property
    def prediction_sigma(self) -> float | None:
        """Log-normal error of the predicted output lengths that it gets; 0: true ones; None: it gets none."""
        if self.policy is not None:
            return prediction_sigma_of(self.policy)
        if self.controller is not None:
            return self.controller.sigma
        if self.selector is not None:
            return None
        assert self.config is not None
        if self.information == Information.ORACLE:
            return 0.0
        return self.config.prediction_sigma if self.information == Information.PREDICTED else None

    def serve(
        self,
        workload: Workload,
        engine: EngineConfig,
        *,
        predicted: NDArray[np.float64] | None = None,
        record_schedule: bool = False,
    ) -> SimulationResult:
        """Serve a workload to its end with given predictions.

        Args:
            workload: the requests.
            engine: the replica.
            predicted: (n,) predicted output tokens, for agents that have a `prediction_sigma`.
            record_schedule: keep every iteration.
        """
        if self.policy is not None:
            return simulate(workload, engine, self.policy, predicted=predicted, record_schedule=record_schedule)
        if self.controller is not None:
            return self.controller.play(workload, engine, predicted=predicted, record_schedule=record_schedule)
        if self.selector is not None:
            return self.selector.play(workload, engine, record_schedule=record_schedule)
        from infermax_gym.agents.play import play_network

        assert self.network is not None and self.config is not None
        return play_network(
            self.network, self.config, workload, engine, predicted=predicted, record_schedule=record_schedule
        )


def prediction_sigma_of(policy: Policy) -> float | None:
    """Log-normal error of the predicted output lengths that a policy gets; 0: true ones; None: it gets none."""
    return policy.prediction_sigma if policy.information in (Information.PREDICTED, Information.ORACLE) else None
