"""Random small fleets and routers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from infermax_gym.baselines.routers import ROUTERS
from infermax_gym.cluster import SIGNALS, Fleet, KvTransfer, Migration, Mover, Pairing, Replica, Router
from infermax_gym.engine import Policy
from tests.engine.strategies import configs, policies


def fleet_policies() -> st.SearchStrategy[Policy]:
    """Policies that can run in a fleet: a replica knows of nobody to come, so it cannot wait for them."""
    return policies().map(lambda policy: replace(policy, min_waiting=0))


@st.composite
def fleets(draw: Any, max_replicas: int = 4, min_replicas: int = 1) -> Fleet:
    """Equal or different replicas, fresh or old signals."""
    count = draw(st.integers(min_replicas, max_replicas))
    caching = draw(st.booleans())
    kinds = [
        Replica(
            replace(draw(configs()), prefix_caching=caching, empty_blocks_first=draw(st.booleans())),
            draw(fleet_policies()),
        )
        for _ in range(draw(st.integers(1, count)))
    ]
    return Fleet(
        tuple(kinds[draw(st.integers(0, len(kinds) - 1))] for _ in range(count)),
        staleness_s=draw(st.sampled_from([0.0, 0.0, 0.004, 0.3, 100.0])),
        counts_routed=draw(st.booleans()),
    )


@st.composite
def migrations(draw: Any) -> Migration:
    """Pairs that meet all the time or rarely, links that are fast or slow."""
    return Migration(
        period_s=draw(st.sampled_from([0.003, 0.003, 0.02, 1.0])),
        pairing=draw(st.sampled_from(Pairing)),
        mover=draw(st.sampled_from(Mover)),
        threshold=draw(st.sampled_from([-3.0, -0.5, -1.0, -2.0, -6.0, -15.0])),
        transfer=KvTransfer(1.0, draw(st.sampled_from([1e3, 1e5, 1e9])), draw(st.sampled_from([0.0, 0.0, 0.002, 0.2]))),
    )


@st.composite
def routers(draw: Any) -> Router:
    """A row of the table, or any weights."""
    if draw(st.booleans()):
        return draw(st.sampled_from(list(ROUTERS.values())))
    if draw(st.booleans()):
        row = ROUTERS[draw(st.sampled_from(["prefix-aware", "lmetric"]))]
        limits = {name: draw(st.sampled_from([0.0, 0.3, 1.5, 4.0])) for name in ("most_difference", "most_ratio")}
        return replace(row, least_match=draw(st.sampled_from([0.0, 0.3, 0.9])), **limits)
    if draw(st.booleans()):
        row = ROUTERS[draw(st.sampled_from(["llm-d", "preble", "d2lpm"]))]
        return replace(
            row,
            share_weights=tuple(draw(st.sampled_from([0.0, 0.5, 1.0, 3.0])) for _ in range(3)),
            recent_s=draw(st.sampled_from([1e-3, 0.5, 180.0])),
            quantum_tokens=draw(st.sampled_from([1, 20, 150, 16_384])),
        )
    if draw(st.booleans()):
        row = ROUTERS[draw(st.sampled_from(["block", "block-predicted"]))]
        guess, horizon_s = draw(st.sampled_from([1, 5, 200])), draw(st.sampled_from([1e-3, 0.05, 60.0]))
        return replace(row, first_guess_tokens=guess, horizon_s=horizon_s)
    weights = [draw(st.sampled_from([0.0, 0.0, 1.0, -1.0, 0.25, 3.0])) for _ in SIGNALS]
    return Router("any", weights=tuple(weights), num_choices=draw(st.sampled_from([0, 0, 1, 2, 3, 16])))
