"""Engines and costs by name, as settings name them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infermax_gym.vllm.errors import PlugInError

if TYPE_CHECKING:
    from infermax_gym.cost import CostModel


def find_cost(name: str, setting: str) -> tuple[CostModel, int | None]:
    """What iterations cost, and the KV tokens of an engine of the table; None for those of a cost model.

    Args:
        name: an engine with an @, a cost of the table, or FILE.json.
        setting: where it stands, for errors.

    Raises:
        PlugInError: there is none of that name; one line.
    """
    from infermax_gym.cost import COSTS, CostModelError, load_cost_model
    from infermax_gym.cost.engines import EngineNameError, find_engine

    try:
        if "@" in name and not name.endswith(".json"):
            engine = find_engine(name)
            return engine.cost, engine.num_kv_tokens
        return COSTS[name] if name in COSTS else load_cost_model(name), None
    except (CostModelError, EngineNameError) as error:
        raise PlugInError(f"infermax: {setting}: {error}") from None
