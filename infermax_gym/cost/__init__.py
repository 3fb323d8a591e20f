"""What an iteration costs: `CostModel` (batch features to seconds), presets, JSON files."""

from infermax_gym.cost.forms import only_with_prefills
from infermax_gym.cost.model import CostModel, CostModelError, load_cost_model
from infermax_gym.cost.presets import COSTS

__all__ = ["COSTS", "CostModel", "CostModelError", "load_cost_model", "only_with_prefills"]
