"""A trained classifier of which a few numbers are tuned, as a checkpoint of the classifier."""

from pathlib import Path

import torch
from torch import Tensor

from locat_mm.checkpoint import read_state_dict, write_beside

__all__ = ['write_tuned']


def write_tuned(host: str, tuned: str, out: Path) -> None:
    """Write the host's weights with what a tuning made of them.

    Args:
        host: checkpoint of the classifier.
        tuned: checkpoint of LoRA (mmpretrain's ``LoRAModel`` with ``alpha`` equal to ``rank``,
            which has no other weights) or of DenseDINO, whose teacher has the GAug to take.
        out: the checkpoint to write.

    Raises:
        ValueError: if there is neither LoRA nor a teacher's GAug in ``tuned``.
    """
    state, changes = read_state_dict(host), read_state_dict(tuned)
    merged = {**state, **_lora(state, changes), **_gaug(changes)}
    if len(merged) == len(state) and all(merged[key] is state[key] for key in state):
        raise ValueError(f'{tuned} has neither LoRA nor GAug of a teacher')
    with write_beside(out) as beside:
        torch.save(dict(state_dict=merged), beside)


def _lora(state: dict[str, Tensor], changes: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights W + B·A of the layers with LoRA."""
    merged = {}
    for key, down in changes.items():
        if key.endswith('.lora_down.weight'):
            up = changes[key.replace('.lora_down.', '.lora_up.')]
            name = key.removeprefix('module.').replace('.lora_down.', '.')
            merged[name] = state[name] + up @ down
    return merged


def _gaug(changes: dict[str, Tensor]) -> dict[str, Tensor]:
    prefix = 'teacher.module.'
    return {
        key.removeprefix(prefix): value
        for key, value in changes.items()
        if key.startswith(prefix) and '.gaug.' in key
    }
