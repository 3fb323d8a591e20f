"""Trained policies read for vLLM: without torch, and without the compiled code that runs them in the simulator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infermax_gym.engine.policy import Policy
from infermax_gym.vllm.errors import PlugInError

if TYPE_CHECKING:
    from infermax_gym.vllm.knobs import KnobWeights


def read_agent(name: str, without: tuple[str, ...] = ()) -> tuple[Policy, KnobWeights | None]:
    """The policy of a trained agent, and what sets its knobs while it runs.

    Args:
        name: of a shipped agent, or a file.
        without: knobs of a controller that are switched off, as vLLM cannot do what they do.

    Raises:
        PlugInError: the file is missing, corrupt or cannot run in vLLM; one line.
    """
    from infermax_gym.agents.cards import read_card, resolve
    from infermax_gym.agents.serialization import policy_from_json

    where = resolve(name)
    try:
        data = where.read_bytes()
    except OSError as error:
        raise PlugInError(f"infermax: agent {name}: cannot be read ({error.strerror})") from None
    try:
        card, tensors = read_card(data)
        if card["kind"] == "policy":
            if without:
                raise PlugInError(f"infermax: agent {name}: without is for controllers; this is a policy")
            return policy_from_json(card.get("policy")), None
        if card["kind"] != "controller":
            raise PlugInError(f"infermax: agent {name} is a {card['kind']}; vLLM can run policies and controllers")
        from infermax_gym.vllm.knobs import BASE, read_controller

        return BASE, read_controller(str(card["name"]), card.get("controller"), tensors, without)
    except PlugInError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise PlugInError(f"infermax: agent {name}: {error}") from None
