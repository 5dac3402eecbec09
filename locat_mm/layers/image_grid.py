"""The patch grid of the current image, for hosts whose blocks do not pass it to the attention."""

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ['ImageGrid', 'can_tell_grid', 'read_grid']


class ImageGrid:
    """A forward hook of a host's patch embedding that remembers the grid of the image.

    Layers look the grid up by the number of their patches. So one step can have several image
    sizes (multi-crop training), also when gradient checkpointing runs layers again in the backward
    pass. Two grids with equal numbers of patches, such as 8×16 and 16×8, are an error then.
    """

    def __init__(self) -> None:
        self._grids: dict[int, tuple[int, int]] = {}
        #: Grids of forward passes that a backward pass may run again.
        self._pending: dict[int, tuple[int, int]] = {}
        self._ambiguous: dict[int, tuple[int, int]] = {}
        self._in_backward = False
        #: Of the image that torch.export traces. Symbolic sizes cannot be keys of a dict.
        self._exported: tuple[int, int] | None = None

    def __call__(self, patch_embed: nn.Module, args: tuple, output: Any) -> None:
        height, width = map(_untraced, read_grid(patch_embed, args, output))
        if torch.compiler.is_exporting():
            self._exported = (height, width)
            return
        self._grids[height * width] = (height, width)
        if not torch.compiler.is_compiling():  # compiled code holds its grid as a constant
            self._remember(height, width)

    def of(self, num_patches: int) -> tuple[int, int]:
        """The latest grid (rows, columns) with this number of patches.

        Raises:
            ValueError: if there was none, or if a backward pass finds two.
        """
        num_patches = _untraced(num_patches)
        if torch.compiler.is_exporting():
            assert self._exported is not None
            return self._exported
        if num_patches not in self._grids:
            grids = ', '.join(f'{h}×{w}' for h, w in self._grids.values()) or 'none'
            raise ValueError(
                f'attention over {num_patches} patches, but the patch embedding made these '
                f'grids: {grids}. GAug needs all patches of the image, row by row, after the '
                'prefix tokens: none dropped, merged or added'
            )
        if not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1:
            self._in_backward = True
            if num_patches in self._ambiguous:
                both = self._ambiguous[num_patches], self._grids[num_patches]
                raise ValueError(
                    'gradient checkpointing runs a layer again in the backward pass, after '
                    f'forward passes on {" and ".join(f"{h}×{w}" for h, w in both)} patches, '
                    'which it cannot tell apart: call backward after each of them, or switch '
                    'checkpointing off'
                )
        return self._grids[num_patches]

    def _remember(self, height: int, width: int) -> None:
        if self._in_backward:  # the backward pass has ended: a new step
            self._in_backward = False
            self._pending.clear()
            self._ambiguous.clear()
        earlier = self._pending.get(height * width, (height, width))
        if earlier != (height, width):
            self._ambiguous[height * width] = earlier
        if torch.is_grad_enabled():
            self._pending[height * width] = (height, width)


def can_tell_grid(patch_embed: nn.Module) -> bool:
    """Whether a patch embedding is timm's or OpenMMLab's, from which the grid can be read."""
    return hasattr(patch_embed, 'dynamic_feat_size') or hasattr(patch_embed, 'init_out_size')


def read_grid(patch_embed: Any, args: tuple, output: Any) -> tuple[int, int]:
    """Rows and columns of patches, from a patch embedding's arguments and output."""
    if isinstance(output, Tensor):  # timm
        return patch_embed.dynamic_feat_size(args[0].shape[-2:])
    _, grid_size = output  # mmpretrain, mmseg
    return grid_size


def _untraced(size: Any) -> Any:
    """An int. Under ``torch.jit.trace``, with which mmengine counts FLOPs, sizes are tensors."""
    return int(size) if isinstance(size, Tensor) else size
