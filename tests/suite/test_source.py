"""The fence around a scheduler's source: what deciding needs passes, shortcuts to a score do not."""

from __future__ import annotations

import pytest

from infermax_gym.suite.source import check_source
from infermax_gym.suite.tasks import SuiteError

HONEST = """
from __future__ import annotations

import math
from collections import deque

import numpy as np

from infermax_gym.engine import Information
from infermax_gym.engine.batch_builder import BatchBuilder


class Scheduler:
    name, information = "mine", Information.NONE

    def __init__(self):
        self._seen = deque()

    def decide(self, view):
        keys = np.argsort(view.waiting.num_prompt_tokens - 40.0 * math.sqrt(view.clock_s))
        self._seen.append(len(keys))
        return BatchBuilder(view).decision()
"""


def test_an_honest_source_passes() -> None:
    check_source(HONEST)


@pytest.mark.parametrize(
    "source",
    [
        "from infermax_gym.suite.episodes import episode_of",  # draws the test episodes, lengths and all
        "import infermax_gym.engine\ninfermax_gym.suite.episodes.episode_of",
        "import time",  # decides by the clock of the machine
        "import os",
        "from . import suite",
        "from math import *",
        "import numpy as np\nnp.lib.npyio.os",
        "from random import _os",
        "import numpy\nnumpy.load('/etc/passwd', allow_pickle=True)",
        "open('/proc/self/mem')",
        "getattr(0, '__class__')",
        "().__class__.__base__.__subclasses__()",
        "def f():\n yield\nf().gi_frame.f_back.f_locals",  # the engine that calls, and its requests
        "try:\n 1 / 0\nexcept Exception as e:\n e.__traceback__.tb_frame",
        "import operator\noperator.attrgetter('x')",
        "class S:\n def f(self): return self.__init__.__globals__",
        "__builtins__['open']",
        "if",
        "(" * 10_000,
    ],
)
def test_a_shortcut_is_refused_in_one_line(source: str) -> None:
    with pytest.raises(SuiteError, match=r"in line \d+; it may decide|cannot be read") as caught:
        check_source(source)
    assert "\n" not in str(caught.value)
