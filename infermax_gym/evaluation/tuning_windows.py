"""Windows of a workload: parts that share no request, each begun on an empty engine."""

from __future__ import annotations

from dataclasses import dataclass, replace

from infermax_gym.evaluation.scenario import Reader, WorkloadSpec
from infermax_gym.workload import PRESETS, Workload, WorkloadError, WorkloadPreset


@dataclass(frozen=True)
class Windows:
    """Equal parts of a workload, by number; of a preset, as many seeds.

    Attributes:
        spec: the recipe of all of them; of a trace file, with `skip` at the first one.
        count: how many there are.
        size: requests of each; None leaves it to the preset.
        first_seed: of a preset, the seed of the first window.
    """

    spec: WorkloadSpec
    count: int
    size: int | None = None
    first_seed: int = 0

    @property
    def source(self) -> str:
        """Of the recipe."""
        return self.spec.source

    @property
    def made_by(self) -> WorkloadPreset | Reader | None:
        """Of the recipe."""
        return self.spec.made_by

    def __call__(self, window: int) -> Workload:
        """The requests of a window, 0 to `count` - 1."""
        if is_random(self.spec):
            return replace(self.spec, first=self.size)(self.first_seed + window)
        assert self.size is not None
        return replace(self.spec, skip=self.spec.skip + window * self.size, first=self.size)(window)


def is_random(spec: WorkloadSpec) -> bool:
    """Whether another seed gives other requests: presets, not trace files."""
    return isinstance(spec.made_by, WorkloadPreset) or (spec.made_by is None and spec.source in PRESETS)


def split(spec: WorkloadSpec, count: int) -> Windows:
    """All requests of a trace file in windows; what is left over at the end is in none.

    Raises:
        WorkloadError: there are too few requests.
    """
    size = _num_requests(spec) // count
    if size < 2:
        raise WorkloadError(f"{spec.source}: too few requests for {count} windows of at least two")
    return Windows(spec, count, size)


def search_and_held_out(spec: WorkloadSpec, count: int, most: int) -> tuple[Windows, Windows]:
    """Windows to choose by, and as many later ones that no choice has seen.

    Of a preset, the held-out windows are seeds 0 to count - 1, and the others the seeds that follow. Of a trace file
    the former lie at its beginning, the latter at its end.

    Args:
        spec: the recipe.
        count: windows of each kind.
        most: requests of a window at most.

    Raises:
        WorkloadError: the file holds too few requests.
    """
    if is_random(spec):
        size = spec.first if spec.first is not None else most
        return Windows(spec, count, size, first_seed=count), Windows(spec, count, size)
    num_requests = _num_requests(spec)
    size = min(most, num_requests // (2 * count))
    if size < 5:
        raise WorkloadError(
            f"{spec.source}: {num_requests} requests are too few for {2 * count} windows of at least 5; give more, or "
            "fewer --windows"
        )
    later = replace(spec, skip=spec.skip + num_requests - count * size)
    return Windows(spec, count, size), Windows(later, count, size)


def _num_requests(spec: WorkloadSpec) -> int:
    return len(spec(0))
