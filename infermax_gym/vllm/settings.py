"""What a user writes under "infermax" in vLLM's `--additional-config`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infermax_gym.engine.policy import Policy
from infermax_gym.vllm.emulation import Emulation, read_emulation
from infermax_gym.vllm.engines import find_cost
from infermax_gym.vllm.errors import PlugInError
from infermax_gym.vllm.translation import as_served

if TYPE_CHECKING:
    from infermax_gym.baselines.table.shares import Shares
    from infermax_gym.cost import CostModel
    from infermax_gym.vllm.admission import Limits
    from infermax_gym.vllm.choosing import ServedSelector
    from infermax_gym.vllm.knobs import KnobWeights

_KEYS = ("policy", "knobs", "agent", "without", "cost", "max_output_tokens", "log", "log_mib", "emulate")


@dataclass(frozen=True)
class Settings:
    """What the plug-in does.

    Attributes:
        policy: as vLLM follows it; None: vLLM's own scheduler decides (and may be logged).
        controller: sets the policy's knobs while it runs, or None.
        selector: changes the policy while it runs, or None.
        shares: gives the policy its sizes once the replica is known, or None.
        cost: what iterations cost, for policies and controllers that ask.
        max_output_tokens: upper bound on output lengths; None: the model length.
        log: folder of the step log; None: nothing is written.
        log_mib: most mebibytes that it may take.
        emulation: what the emulating executor emulates, or None.
    """

    policy: Policy | None = None
    controller: KnobWeights | None = None
    selector: ServedSelector | None = None
    shares: Shares | None = None
    cost: CostModel | None = None
    max_output_tokens: int | None = None
    log: Path | None = None
    log_mib: int = 256
    emulation: Emulation | None = None

    @property
    def name(self) -> str:
        """Of the agent or policy that decides; "none" where vLLM does."""
        agent = self.controller or self.selector
        if agent is not None:
            return agent.name
        return "none" if self.policy is None else self.policy.name

    def policy_on(self, limits: Limits) -> Policy | None:
        """The policy of a replica, with the sizes that follow from it."""
        if self.shares is None or self.cost is None:
            return self.policy
        return as_served(self.shares.resolve(limits.engine(self.cost)))

    def summary(self) -> str:
        """What decides, for a line of vLLM's log."""
        if self.policy is None:
            return "vLLM's own policy"
        if self.controller is not None:
            return f"controller {self.name}"
        if self.selector is not None:
            left_out = ", ".join(self.selector.left_out) or "none"
            kept = len(self.selector.selector.experts)
            return f"selector {self.name} among {kept} policies; left out, as vLLM cannot follow them: {left_out}"
        return f"policy {self.name} (information: {self.policy.information.name.lower()})"


def read_settings(additional_config: Any) -> Settings:
    """The settings of a server.

    Args:
        additional_config: of vLLM: a mapping with an entry "infermax".

    Raises:
        PlugInError: an entry is unknown, of the wrong type, or names what does not exist or cannot run in vLLM.
    """
    given = additional_config.get("infermax") if isinstance(additional_config, Mapping) else None
    if not isinstance(given, Mapping):
        raise PlugInError(
            'infermax: nothing to do; give --additional-config \'{"infermax": {"policy": "spf-headroom"}}\''
        )
    for key in given:
        if key not in _KEYS:
            raise PlugInError(f"infermax: unknown setting {key!r}; known: {', '.join(_KEYS)}")
    if "policy" in given and "agent" in given:
        raise PlugInError("infermax: give a policy or an agent, not both")
    shares = _shares(given)
    policy, controller, selector = _who_decides(given) if shares is None else (shares.base, None, None)
    emulation = None if given.get("emulate") is None else read_emulation(given["emulate"])
    settings = Settings(
        policy=None if policy is None else as_served(policy),
        controller=controller,
        selector=selector,
        shares=shares,
        cost=_cost(given.get("cost")) or (emulation.cost if emulation is not None else None),
        max_output_tokens=_whole("max_output_tokens", given.get("max_output_tokens")),
        log=None if given.get("log") is None else Path(_text("log", given["log"])),
        log_mib=_whole("log_mib", given.get("log_mib")) or 256,
        emulation=emulation,
    )
    if settings.policy is None and settings.log is None and settings.emulation is None:
        raise PlugInError("infermax: nothing to do; give a policy, an agent, a log or emulate")
    if settings.cost is None and _needs_cost(settings):
        raise PlugInError('infermax: this needs to know what iterations cost; give "cost": NAME or FILE.json')
    return settings


def _shares(given: Mapping[str, Any]) -> Shares | None:
    """A policy whose sizes are shares of what the engine can do, if one is named."""
    from infermax_gym.baselines.table.shares import TABLE

    named = next((shares for shares in TABLE if shares.name == given.get("policy")), None)
    for key in ("knobs", "without") if named is not None else ():
        if key in given:
            raise PlugInError(f"infermax: the knobs of {given['policy']} follow from the engine; leave out {key}")
    return named


def _who_decides(given: Mapping[str, Any]) -> tuple[Policy | None, KnobWeights | None, ServedSelector | None]:
    if "agent" in given:
        from infermax_gym.vllm.agents import read_agent

        if "knobs" in given:
            raise PlugInError("infermax: knobs go with a policy; an agent has its own")
        return read_agent(_text("agent", given["agent"]), _names("without", given.get("without", ())))
    if "without" in given:
        raise PlugInError("infermax: without goes with an agent")
    if "policy" not in given:
        if "knobs" in given:
            raise PlugInError("infermax: knobs go with a policy")
        return None, None, None
    return _policy(given["policy"], given.get("knobs", {})), None, None


def _policy(given: Any, knobs: Any) -> Policy:
    """A policy by its name, from a JSON file, or spelled out; with some knobs set anew."""
    from infermax_gym.agents.serialization import policy_from_json, policy_to_json
    from infermax_gym.baselines.policies import POLICIES

    if not isinstance(knobs, Mapping):
        raise PlugInError(f"infermax: knobs must be an object, got {knobs!r}")
    record = given
    if isinstance(given, str):
        if given in POLICIES:
            record = policy_to_json(POLICIES[given])
        elif given.endswith(".json"):
            record = _json(Path(given))
        else:
            raise PlugInError(f"infermax: unknown policy {given!r}; `infermax list policies` shows them")
    try:
        return policy_from_json({**record, **knobs} if isinstance(record, Mapping) else record)
    except (TypeError, ValueError) as error:
        raise PlugInError(f"infermax: {error}") from None


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PlugInError(f"infermax: {path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise PlugInError(f"infermax: {path}: not JSON ({error})") from None


def _cost(given: Any) -> CostModel | None:
    return None if given is None else find_cost(_text("cost", given), "cost")[0]


def _needs_cost(settings: Settings) -> bool:
    weighs_prefill = settings.policy is not None and settings.policy.queue_weights[9] != 0.0
    return weighs_prefill or any(part is not None for part in (settings.controller, settings.selector, settings.shares))


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise PlugInError(f"infermax: {name} must be a text, got {value!r}")
    return value


def _whole(name: str, value: Any) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise PlugInError(f"infermax: {name} must be a whole number of at least 1, got {value!r}")
    return value


def _names(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not all(isinstance(item, str) for item in value):
        raise PlugInError(f"infermax: {name} must be a list of names, got {value!r}")
    return tuple(value)
