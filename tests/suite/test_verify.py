"""What somebody who wants a better score than theirs would try, and the line that refuses it."""

from __future__ import annotations

import base64
import copy
import json
import os
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infermax_gym.agents.agent import Agent
from infermax_gym.agents.outlook import FEATURES
from infermax_gym.agents.selector import Selector
from infermax_gym.baselines.optimum.instance import Instance
from infermax_gym.baselines.optimum.plan import Plan, Step, plan_of_run
from infermax_gym.baselines.optimum.portfolio import solve
from infermax_gym.baselines.policies import POLICIES
from infermax_gym.baselines.routers import ROUTERS
from infermax_gym.baselines.table.shares import Shares
from infermax_gym.engine import Decision, EngineConfig, Information, Policy, SimulationResult, simulate
from infermax_gym.engine.batch_builder import BatchBuilder
from infermax_gym.suite.board import read_folder
from infermax_gym.suite.cards import card_of
from infermax_gym.suite.decisions import pack_plan, unpack_plan
from infermax_gym.suite.episodes import episode_of
from infermax_gym.suite.play import ActingAgent, play_episode, random_agent
from infermax_gym.suite.result import evaluate, fingerprint, overall, read_result, task_record
from infermax_gym.suite.tasks import ROUTER, TOY, SuiteError
from infermax_gym.suite.verify import verify
from infermax_gym.workload import Workload

Document = dict[str, Any]
VLLM, SARATHI = POLICIES["vllm"], POLICIES["sarathi"]


@pytest.fixture(scope="module")
def honest() -> Document:
    return evaluate({fingerprint(VLLM): VLLM}, name="vllm", tasks=[TOY])


def written(document: Document, folder: Path) -> Path:
    path = folder / "result.json"
    path.write_text(json.dumps(document))
    return path


def refused(document: Document, folder: Path, hint: str) -> None:
    with pytest.raises(SuiteError, match=hint) as caught:
        verify(written(document, folder))
    assert "\n" not in str(caught.value)


def test_an_honest_result_is_certified(honest: Document, tmp_path: Path) -> None:
    path = written(honest, tmp_path)
    assert verify(path, runs={fingerprint(VLLM): VLLM}) == honest
    record = honest["tasks"][TOY.id]
    assert record["seeds"] == TOY.seeds()
    expected = [
        simulate(e.workload, e.engine, VLLM).latency_s.mean()
        for e in map(lambda x: episode_of(TOY, *x), TOY.episodes())
    ]
    assert record["objective"] == pytest.approx(expected, rel=1e-11)


def edited(change: Callable[[Document, Document], None]) -> Callable[[Document], Document]:
    def apply(document: Document) -> Document:
        changed = copy.deepcopy(document)
        change(changed, changed["tasks"][TOY.id])
        return changed

    return apply


def _packed(numbers: list[int]) -> str:
    return base64.b64encode(zlib.compress(np.array(numbers, "<u2").tobytes())).decode()


EDITS: dict[str, tuple[Callable[[Document, Document], None], str]] = {
    "score": (lambda _, r: r["score"].__setitem__(0, 0.99), "score is 0.99 in the file; the decisions give"),
    "objective": (lambda _, r: r["objective"].__setitem__(3, 0.1), "objective is 0.1 in the file"),
    "mean": (lambda _, r: r.update(interquartile_mean=1.0), "interquartile_mean is 1 in the file"),
    "interval": (lambda _, r: r.update(ci95=[0.9, 1.0]), "ci95 is 0.9 in the file"),
    "mean over tasks": (lambda d, _: d.update(interquartile_mean=1.0), "the mean over tasks: interquartile_mean is 1"),
    "a number beyond all": (lambda _, r: r["score"].__setitem__(0, 10**400), "score is inf in the file"),
    "infinity by the back door": (
        lambda _, r: r["objective"].__setitem__(0, -(10**999)),
        "objective is inf in the file",
    ),
    "a command that breaks the table": (lambda d, _: d.update(command="x | y"), "command must be a printable text"),
    "a command that hides": (lambda d, _: d.update(command="rm\u202e"), "command must be a printable text"),
    "true for a number": (lambda _, r: r["score"].__setitem__(0, True), "score must be 12 numbers"),
    "a seed chosen": (lambda _, r: r["seeds"].__setitem__(0, 7), "seeds are not the 12 test seeds"),
    "the worst seed left out": (
        lambda _, r: [r[name].pop() for name in ("seeds", "score", "objective", "decisions")],
        "seeds are not the 12 test seeds",
    ),
    "a lucky episode twice": (
        lambda _, r: r["decisions"].__setitem__(0, r["decisions"][1]),
        "InferMaxSuite-Toy-v1, seed",
    ),
    "no decisions": (lambda _, r: r.update(decisions=[""] * 12), "cannot be read"),
    "decisions of numbers": (lambda _, r: r.update(decisions=[1] * 12), "expected decisions for 12 episodes, as text"),
    "a batch beyond memory": (
        lambda _, r: r["decisions"].__setitem__(0, _packed([1, 0, 0, 4, 0, 8, 1, 8, 2, 8, 3, 8])),
        r"scheduler 'plan' at 0 s: request \d",
    ),
    "a request from nowhere": (
        lambda _, r: r["decisions"].__setitem__(0, _packed([1, 0, 0, 1, 77, 8])),
        "decisions name request 77; there are 4",
    ),
    "waiting for ever": (lambda _, r: r["decisions"].__setitem__(0, _packed([9_000, 0, 0, 0])), "seed"),
    "another suite": (lambda d, _: d.update(suite="v9"), "there is no suite 'v9'"),
    "another schema": (lambda d, _: d.update(schema=2), "no result of schema 1"),
    "a task of its own": (lambda d, r: d["tasks"].update({"Easy-v1": r}), "has no task 'Easy-v1'"),
    "no task": (lambda d, _: d.update(tasks={}), "at least one task"),
    "an oracle": (lambda d, _: d.update(information="oracle"), "information must be none or bound"),
    "markup in the name": (lambda d, _: d.update(agent="a|b"), "agent must be a printable text"),
    "a fingerprint of nothing": (lambda d, _: d.update(sha256="0" * 64), "sha256 is not that of its runs"),
    "a run twice": (lambda d, _: d.update(runs=d["runs"] * 2), "names one agent twice"),
    "more runs than it has": (lambda d, _: d["runs"].append("0" * 64), "sha256 is not that of its runs"),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_file_is_refused(honest: Document, tmp_path: Path, name: str) -> None:
    change, hint = EDITS[name]
    refused(edited(change)(honest), tmp_path, hint)


def test_a_plan_that_ends_early_or_goes_on_is_refused(honest: Document, tmp_path: Path) -> None:
    steps = unpack_plan(honest["tasks"][TOY.id]["decisions"][0], 4, 1_000).steps
    for plan, hint in (
        (steps[:-1], "ends at .* before all requests"),
        ((*steps, Step(())), "go on after all requests"),
    ):
        changed = copy.deepcopy(honest)
        changed["tasks"][TOY.id]["decisions"][0] = pack_plan(Plan(tuple(plan)))
        refused(changed, tmp_path, hint)


def test_a_plan_of_the_solver_is_no_agents_decision(honest: Document, tmp_path: Path) -> None:
    """Whoever knows the future can submit its plan: the scores are true, but no agent decides so."""
    objectives, decisions = [], []
    for variant, seed in TOY.episodes():
        episode = episode_of(TOY, variant, seed)
        instance = Instance.from_workload(episode.workload, episode.engine)
        solution = solve(instance, "latency", max_evaluations=30)
        assert solution.plan is not None and solution.run is not None
        decisions.append(pack_plan(solution.plan))
        objectives.append(float(solution.run.latency_s.mean()))
    document = copy.deepcopy(honest)
    document["tasks"] = {TOY.id: task_record(TOY, objectives, decisions, "v1")}
    document.update(overall(document["tasks"]))
    path = written(document, tmp_path)
    verify(path)
    with pytest.raises(SuiteError, match="the agent decides something else than the file says"):
        verify(path, runs={fingerprint(VLLM): VLLM})


def test_the_agent_that_plays_again_must_be_the_one_of_the_file(honest: Document, tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="other SHA-256 digests"):
        verify(written(honest, tmp_path), runs={fingerprint(SARATHI): SARATHI})


class SeesAll:
    """Serves whole workloads by itself, and so has the output lengths."""

    name = "sees-all"
    information = Information.NONE

    def play(self, workload: Workload, engine: EngineConfig, **_: Any) -> SimulationResult:
        return simulate(workload, engine, POLICIES["srpt-oracle"], predicted=workload.num_output_tokens)


class Forged(SeesAll):
    __module__ = "infermax_gym.agents.agent"  # what a class says of itself


class ChangesItsMind:
    """Declares that it knows nothing, a few times, then that it knows all."""

    name = "changes-its-mind"

    def __init__(self, times: int) -> None:
        self.times = times
        self.asked = 0
        self.seen: set[str] = set()

    @property
    def information(self) -> Information:
        self.asked += 1
        return Information.NONE if self.asked <= self.times else Information.ORACLE

    def decide(self, view: Any) -> Decision:
        self.seen.add(type(view).__name__)
        builder = BatchBuilder(view)
        for r in view.running.request[:1].tolist() or view.waiting.request[:1].tolist():
            builder.serve(r) if r in view.running.request else builder.admit(r)
        return builder.decision()


def test_whoever_declares_more_later_is_told_no_more() -> None:
    agents = [ChangesItsMind(times) for times in range(1, 5)]
    for agent in agents:  # whoever says so before it plays is refused; how often that asks is not ours to say
        with suppress(SuiteError):
            play_episode(agent, TOY, *TOY.episodes()[0])
    assert all(agent.seen <= {"OnlineView"} for agent in agents)
    assert agents[-1].seen


def test_a_selector_plays_without_policies_that_do_not_cut_prompts() -> None:
    whole, plain = Shares(Policy("whole", chunking=False)), Shares(Policy("plain"))
    weights = {"inner": np.zeros((1, len(FEATURES))), "outer": np.array([[0.0, 1.0], [0.0, 0.0]])}  # whole is preferred
    chosen = play_episode(Agent("either", selector=Selector((whole, plain), **weights)), TOY, *TOY.episodes()[0])
    assert chosen == play_episode(Policy("plain"), TOY, *TOY.episodes()[0])
    alone = Selector((whole,), weights["inner"], weights["outer"][:1])
    with pytest.raises(SuiteError, match="'alone' has only policies that do not cut prompts"):
        play_episode(Agent("alone", selector=alone), TOY, *TOY.episodes()[0])


def test_an_agent_that_knows_more_is_not_certified_by_playing_again(tmp_path: Path) -> None:
    """Its file says that it knows nothing, and its schedules are what it decides."""
    oracle = POLICIES["srpt-oracle"]
    objectives, decisions = [], []
    for variant, seed in TOY.episodes():
        episode = episode_of(TOY, variant, seed)
        run = simulate(
            episode.workload,
            episode.engine,
            oracle,
            predicted=episode.workload.num_output_tokens.astype(float),
            record_schedule=True,
        )
        decisions.append(pack_plan(plan_of_run(Instance.from_workload(episode.workload, episode.engine), run)))
        objectives.append(float(run.latency_s.mean()))
    digest = fingerprint(oracle)
    document: Document = {"schema": 1, "suite": "v1", "agent": "clever", "sha256": digest, "runs": [digest]}
    document.update(information="none", tasks={TOY.id: task_record(TOY, objectives, decisions, "v1")})
    document.update(overall(document["tasks"]))
    path = written(document, tmp_path)
    verify(path)
    with pytest.raises(SuiteError, match="information is none in the file; the agents say oracle"):
        verify(path, runs={digest: oracle})


@pytest.mark.parametrize(
    ("agent", "hint"),
    [
        (Forged(), "serves whole workloads by itself"),
        (POLICIES["srpt-oracle"], "tells nothing of output lengths"),
        (POLICIES["sarathi-2048"], "plays on another engine"),
        (SeesAll(), "serves whole workloads by itself"),
    ],
)
def test_agents_that_know_or_have_more_than_the_task_gives_are_not_played(agent: Any, hint: str) -> None:
    with pytest.raises(SuiteError, match=hint):
        evaluate({"0" * 64: agent}, name="x", tasks=[TOY])


def test_a_function_sees_an_observation_without_output_lengths() -> None:
    """Two episodes that differ in output lengths alone look alike until an output ends."""
    seen: list[Any] = []
    play_episode(
        ActingAgent("looks", lambda observation, mask: seen.append(observation) or int(mask.argmax())),
        TOY,
        *TOY.episodes()[0],
    )
    assert all((o["waiting"][:, 6] == 0.0).all() and (o["running"][:, 7] == 0.0).all() for o in seen)


def test_training_runs_are_samples(tmp_path: Path) -> None:
    both = {fingerprint(a): a for a in (VLLM, SARATHI)}
    document = evaluate(both, name="two", tasks=[TOY])
    record = document["tasks"][TOY.id]
    assert record["seeds"] == TOY.seeds() * 2
    means = np.array(record["score"]).reshape(2, -1).mean(1)
    assert record["interquartile_mean"] == pytest.approx(means.mean())
    verify(written(document, tmp_path))


def test_a_router_is_certified_and_an_edited_choice_is_not(tmp_path: Path) -> None:
    router = ROUTERS["least-outstanding"]
    document = evaluate({fingerprint(router): router}, name="lor", tasks=None)
    assert list(document["tasks"]) == [ROUTER.id]
    path = written(document, tmp_path)
    assert verify(path) == document
    decisions = document["tasks"][ROUTER.id]["decisions"]
    for numbers, hint in (
        ([9] * 300, "to replica 9, which cannot hold it"),
        ([0] * 10, "end after 10 requests"),
        ([0] * 301, "go on after"),
    ):
        decisions[0] = _packed(numbers)
        refused(document, tmp_path, hint)


def test_random_play_is_the_same_every_time() -> None:
    first, second = (play_episode(random_agent(), TOY, *TOY.episodes()[2]) for _ in range(2))
    assert first == second


def test_files_that_are_no_results(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    with pytest.raises(SuiteError, match="cannot be read"):
        read_result(path)
    for text in ("", "[", "[" * 100_000, '{"schema": NaN}', "[]", '{"schema": 1, "agent": ""}'):
        path.write_text(text)
        with pytest.raises(SuiteError, match=r"is no JSON|no result of schema|agent must be"):
            read_result(path)
    with path.open("wb") as file:
        file.truncate(65 * 2**20)
    with pytest.raises(SuiteError, match="has 68,157,440 bytes; a result has at most 67,108,864"):
        read_result(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_files_that_never_end_and_links(honest: Document, tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe.json", tmp_path / "link.json"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero")):
        with pytest.raises(SuiteError, match="is no plain file"):
            read_result(path)
    pipe.unlink()
    link.symlink_to(written(honest, tmp_path))
    assert read_result(link) == honest
    with pytest.raises(SuiteError, match="is a link; expected the file itself"):
        read_folder(tmp_path)


def test_no_reference_lies_below_the_yardstick() -> None:
    from infermax_gym.suite.tasks import tasks_of

    for task in tasks_of("v1"):
        card = card_of(task)
        assert (card.span > 0.0).all()
        for values in card.references.values():
            assert (values >= card.one * (1.0 - 1e-9)).all()
        assert card.score(card.zero).tolist() == [0.0] * len(card.zero)
        means = card.score(card.one).reshape(len(task.test), -1).mean(1)
        assert means == pytest.approx(np.ones(len(task.test)))


def test_the_shipped_defaults_are_what_the_engine_says() -> None:
    for i, (variant, seed) in enumerate(TOY.episodes()):
        episode = episode_of(TOY, variant, seed)
        reached = simulate(episode.workload, episode.engine, VLLM).latency_s.mean()
        assert card_of(TOY).references["vllm"][i] == pytest.approx(reached, rel=1e-10)
