"""The readers of `tests.fuzz` under atheris, which keeps inputs that reach new code; needs `pip install atheris`.

    TMPDIR=/dev/shm python -m tests.fuzz_coverage --kind trace -runs=100000

What begins with one dash goes to libFuzzer. Readers are written in Python, and only their modules are instrumented:
compiled functions must keep their bytecode.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
from pathlib import Path

READERS = (
    "infermax_gym.files", "infermax_gym.workload", "infermax_gym.cost.measured", "infermax_gym.cost.profiles",
    "infermax_gym.cost.model", "infermax_gym.cost.roofline", "infermax_gym.cli", "infermax_gym.sweep",
    "infermax_gym.baselines.optimum.instance", "infermax_gym.agents.cards", "infermax_gym.agents.storage",
)  # fmt: skip


def main() -> None:
    """Run libFuzzer; it ends the process."""
    import atheris

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kind", default="trace")
    options, for_libfuzzer = parser.parse_known_args()
    with atheris.instrument_imports(include=list(READERS)):
        from tests.fuzz import MOST_BYTES, attempt, targets

        target = targets()[options.kind]
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_BYTES, MOST_BYTES))
    folder = Path(tempfile.mkdtemp())
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(target.seeds):
        (corpus / str(number)).write_bytes(seed)
    path = folder / f"input{target.suffix}"

    def one(data: bytes) -> None:
        path.write_bytes(data)
        attempt(lambda: target.read(path), target.refusals)

    atheris.Setup([sys.argv[0], str(corpus), "-max_len=4000", "-timeout=20", "-rss_limit_mb=4000", *for_libfuzzer], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
