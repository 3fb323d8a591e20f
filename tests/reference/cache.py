"""The section "Prefix cache": KV blocks one by one, in one queue of those that nobody holds."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np

from infermax_gym.workload.workload import Workload
from tests.reference.request import Request


@dataclass(eq=False)
class Block:
    """One KV block.

    Attributes:
        contents: what is known to be in it, None if nothing is.
        holders: requests that hold it.
    """

    contents: Hashable = None
    holders: int = 0


class PrefixCache:
    """All KV blocks of an engine.

    Attributes:
        unheld: blocks that nobody holds, those that have been so for longest in front.
        found: the block with some contents.
        tables: blocks of each request, by its number, in the order of its tokens.
        published: how many of them others can find.
        empty_first: whether freed blocks without contents are used again before all others.
    """

    def __init__(self, workload: Workload, block_size: int, num_blocks: int, empty_first: bool = False) -> None:
        self.empty_first = empty_first
        self.workload = workload
        self.b = block_size
        self.unheld = [Block() for _ in range(num_blocks)]
        self.found: dict[Hashable, Block] = {}
        self.tables: dict[int, list[Block]] = {}
        self.published: dict[int, int] = {}
        self.covered = [self._covered(number) for number in range(len(workload))]

    def _covered(self, number: int) -> int:
        """Leading tokens of a request that its prefix hashes speak of."""
        workload, size = self.workload, self.workload.prefix_block_size
        num_hashes = int(np.diff(workload.prefix_start)[number])
        prompt, output = int(workload.num_prompt_tokens[number]), int(workload.num_output_tokens[number])
        prompt_blocks = -(-prompt // size) if size else 0
        return min(num_hashes * size, prompt if num_hashes <= prompt_blocks else prompt + output)

    def contents(self, number: int, index: int) -> Hashable:
        """What a request's block holds once it is full: the same for two requests if their tokens are the same."""
        end = (index + 1) * self.b
        if end > self.covered[number]:
            return ("own", number, index)
        first = int(self.workload.prefix_start[number])
        num_hashes = -(-end // self.workload.prefix_block_size)
        return (index, *self.workload.prefix_blocks[first : first + num_hashes].tolist())

    def matches(self, request: Request) -> list[Block]:
        """The cached blocks that a waiting request would start with."""
        most = (request.known - 1) // self.b
        if request.on_host:
            most = min(most, request.resident // self.b)
        blocks = []
        for index in range(most):
            block = self.found.get(self.contents(request.number, index))
            if block is None:
                break
            blocks.append(block)
        return blocks

    def start(self, request: Request, matches: list[Block]) -> None:
        """A request joins with the blocks that it found."""
        for block in matches:
            self._hold(block)
        self.tables[request.number] = list(matches)
        self.published[request.number] = len(matches)

    def _hold(self, block: Block) -> None:
        if block.holders == 0:
            self.unheld.remove(block)
        block.holders += 1

    def take(self, request: Request, count: int) -> None:
        """A request takes the blocks that have been free for longest; what they held is forgotten."""
        for _ in range(count):
            block = self.unheld.pop(0)
            if block.contents is not None:
                del self.found[block.contents]
            block.contents, block.holders = None, 1
            self.tables[request.number].append(block)

    def publish(self, request: Request, num_tokens: int) -> None:
        """The full blocks among a request's first tokens can be found; known contents are not kept twice."""
        table = self.tables[request.number]
        for index in range(self.published[request.number], num_tokens // self.b):
            contents = self.contents(request.number, index)
            other = self.found.get(contents)
            if other is None:
                table[index].contents = contents
                self.found[contents] = table[index]
            else:
                self._hold(other)
                table[index].holders = 0
                self.unheld.append(table[index])
                table[index] = other
        self.published[request.number] = max(self.published[request.number], num_tokens // self.b)

    def release(self, request: Request) -> None:
        """A request lets go of its blocks, the last first."""
        for block in reversed(self.tables.pop(request.number)):
            block.holders -= 1
            if block.holders == 0 and block.contents is None and self.empty_first:
                self.unheld.insert(0, block)
            elif block.holders == 0:
                self.unheld.append(block)

    def alone(self, request: Request) -> int:
        """How many blocks nobody but this request holds."""
        return sum(block.holders == 1 for block in self.tables[request.number])
