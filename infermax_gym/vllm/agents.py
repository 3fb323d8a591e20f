"""Trained policies read for vLLM: without torch, and without the compiled code that runs them in the simulator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from infermax_gym.engine.policy import Policy
from infermax_gym.vllm.errors import PlugInError

if TYPE_CHECKING:
    from infermax_gym.vllm.choosing import ServedSelector
    from infermax_gym.vllm.knobs import KnobWeights


def read_agent(name: str, without: tuple[str, ...] = ()) -> tuple[Policy, KnobWeights | None, ServedSelector | None]:
    """The policy of a trained agent, what sets its knobs while it runs, and what puts others in its place.

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
        if card["kind"] not in ("policy", "controller", "selector"):
            raise PlugInError(
                f"infermax: agent {name} is a {card['kind']}; vLLM can run policies, controllers and selectors"
            )
        if without and card["kind"] != "controller":
            raise PlugInError(f"infermax: agent {name}: without is for controllers; this is a {card['kind']}")
        if card["kind"] == "policy":
            return policy_from_json(card.get("policy")), None, None
        if card["kind"] == "selector":
            return _selector(str(card["name"]), card.get("selector"), tensors)
        from infermax_gym.vllm.knobs import BASE, read_controller

        return BASE, read_controller(str(card["name"]), card.get("controller"), tensors, without), None
    except PlugInError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise PlugInError(f"infermax: agent {name}: {error}") from None


def _selector(name: str, record: Any, tensors: Mapping[str, Any]) -> tuple[Policy, None, ServedSelector]:
    from infermax_gym.agents.selector_card import selector_from_json
    from infermax_gym.vllm.choosing import served_selector

    served = served_selector(name, selector_from_json(record, tensors))
    return served.selector.experts[0].base, None, served
