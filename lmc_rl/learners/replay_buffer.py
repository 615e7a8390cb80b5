"""The replay buffer: numbered transitions in blocks. Copies share their blocks, because what is written never changes.

A row is observation, next observation, action, reward and whether the next state is terminal. Axis letters: B rows,
O numbers of an observation, D of an action; a row has W = 2 O + D + 2 numbers, float32.
"""

from collections.abc import Mapping

import numpy as np
import torch

from lmc_rl.learners.mujoco import Transition

BLOCK_ROWS = 2**16


class ReplayBuffer:
    """The latest `capacity` transitions. A copy costs nothing; it copies the last block when it first writes there."""

    def __init__(self, obs_dim: int, action_dim: int, capacity: int):
        self.obs_dim, self.action_dim, self.capacity = obs_dim, action_dim, capacity
        self.end = 0  # transitions added so far: the number of the next
        self.inherited = 0  # of these, how many came with the fork
        self._blocks: list[np.ndarray | None] = []
        self._owns_last = True

    @property
    def first(self) -> int:
        """The number of the oldest transition that is kept."""
        return max(0, self.end - self.capacity)

    def __len__(self) -> int:
        return self.end - self.first

    def add(self, transition: Transition) -> None:
        """Keep a transition, and forget the oldest if there are more than `capacity`."""
        obs, action, reward, next_obs, is_terminal = transition
        self.append(np.concatenate([obs, next_obs, action, [reward, is_terminal]], dtype=np.float32)[None])

    def append(self, rows: np.ndarray) -> None:
        """Keep rows (B, W) float32, in their order."""
        while len(rows):
            number, offset = divmod(self.end, BLOCK_ROWS)
            block = self._writable_block(number, offset)
            count = min(len(rows), BLOCK_ROWS - offset)
            block[offset : offset + count] = rows[:count]
            self.end += count
            rows = rows[count:]
        for number in range(self.first // BLOCK_ROWS):
            self._blocks[number] = None

    def _writable_block(self, number: int, used: int) -> np.ndarray:
        if number == len(self._blocks):
            # not filled with zeros: the system gives memory where it is written to
            self._blocks.append(np.empty((BLOCK_ROWS, 2 * self.obs_dim + self.action_dim + 2), np.float32))
        block = self._blocks[number]
        assert block is not None, "only blocks before the first transition are gone"
        if used and not self._owns_last:
            shared, block = block, np.empty_like(block)
            block[:used] = shared[:used]
            self._blocks[number] = block
        self._owns_last = True
        return block

    def rows(self, numbers: np.ndarray) -> np.ndarray:
        """The rows (B, W) of these numbers (B,), each from `first` to before `end`."""
        blocks, offsets = np.divmod(numbers, BLOCK_ROWS)
        rows = np.empty((len(numbers), 2 * self.obs_dim + self.action_dim + 2), np.float32)
        for number in np.unique(blocks):
            here = blocks == number
            rows[here] = self._blocks[number][offsets[here]]
        return rows

    def fork(self) -> "ReplayBuffer":
        """A copy that goes its own way; it shares what is written so far."""
        fork = ReplayBuffer(self.obs_dim, self.action_dim, self.capacity)
        fork.end = fork.inherited = self.end
        fork._blocks, fork._owns_last = list(self._blocks), False
        return fork

    def part(self, index: int, num_parts: int, rng: np.random.Generator) -> "ReplayBuffer":
        """One of `num_parts` disjoint random parts, equally large but for one transition, in the order of time.

        rng: in the same state for all parts, which together are the whole.
        """
        numbers = np.sort(rng.permutation(np.arange(self.first, self.end))[index::num_parts])
        part = ReplayBuffer(self.obs_dim, self.action_dim, self.capacity)
        part.append(self.rows(numbers))
        part.inherited = part.end
        return part

    def empty(self) -> "ReplayBuffer":
        """A buffer of this size without a transition."""
        return ReplayBuffer(self.obs_dim, self.action_dim, self.capacity)

    def state(self) -> dict:
        """The transitions that are not inherited, as a tensor, and their numbers."""
        numbers = np.arange(max(self.first, self.inherited), self.end)
        return {"end": self.end, "inherited": self.inherited, "rows": torch.from_numpy(self.rows(numbers))}

    def load_state(self, state: Mapping) -> None:
        """Continue where `state()` was taken; what was inherited there must have been inherited here too."""
        if self.inherited != state["inherited"]:
            raise ValueError(f"{self.inherited} transitions were inherited, not {state['inherited']}")
        if self.end > self.inherited:
            raise ValueError("only a buffer without transitions of its own can be restored")
        rows, num_kept = state["rows"].numpy(), min(state["end"] - self.inherited, self.capacity)
        if len(rows) != num_kept:
            raise ValueError(f"it holds {len(rows)} transitions of its own, not {num_kept}")
        self.end = state["end"] - len(rows)  # what was written since, and forgotten, has numbers but no rows
        self._blocks += [None] * (self.end // BLOCK_ROWS - len(self._blocks))
        self.append(rows)
