"""A checkpoint with something wrong, and what a correct reader makes of it."""

import copy
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

__all__ = ['Maker', 'Mutant']


@dataclass
class Mutant:
    """A file, and what a correct reader makes of it.

    Attributes:
        path: of the file.
        note: what was done to it.
        state: the weights that it holds by construction, or None if it must be refused.
        ema: the averaged weights beside them, likewise.
        resumable: optimizer, schedule and counts are as they were.
        loose: to refuse it is right as well.
    """

    path: Path
    note: str
    state: dict[str, torch.Tensor] | None
    ema: dict[str, torch.Tensor] | None = None
    resumable: bool = False
    loose: bool = False


class Maker:
    """Makes mutants of one checkpoint.

    Args:
        content: of a whole checkpoint, as mmengine writes it.
        others: state dicts of other models.
        folder: for the files.
        marker: a path that hostile files try to create.
        rng: of all choices.
    """

    def __init__(
        self, content: dict, others: list[dict], folder: Path, marker: Path, rng: random.Random
    ) -> None:
        self.content = copy.deepcopy(content)
        self.others = others
        self.folder = folder
        self.marker = marker
        self.rng = rng

    @property
    def state(self) -> dict[str, torch.Tensor]:
        return self.content['state_dict']

    def save(self, note: str, content: Any = None, **facts: Any) -> Mutant:
        """As torch saves; of ``facts`` the state is by default the content's."""
        path = self.folder / 'checkpoint.pth'
        content = self.content if content is None else content
        torch.save(content, path)
        return Mutant(path, note, **{'state': dict(self.state), 'ema': self.ema(), **facts})

    def ema(self) -> dict[str, torch.Tensor] | None:
        average = self.content.get('ema_state_dict')
        if average is None:
            return None
        return {k.removeprefix('module.'): v for k, v in average.items() if k.startswith('module.')}

    def safetensors(self, note: str, state: dict) -> Mutant:
        path = self.folder / 'checkpoint.safetensors'
        save_file({k: v.clone().contiguous() for k, v in state.items()}, path)
        return Mutant(path, note, dict(state))

    def key(self) -> str:
        """A parameter's, of one dimension at least."""
        return self.rng.choice([k for k, v in self.state.items() if v.ndim and v.numel() > 1])
