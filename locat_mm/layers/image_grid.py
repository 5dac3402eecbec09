"""The patch grid of an image, for attention layers whose host's blocks do not pass it on."""

from typing import Any

from torch import Tensor, nn

__all__ = ['ImageGrid', 'can_tell_grid']


class ImageGrid:
    """Reads the grid off a host's patch embedding, as a forward hook of that.

    Layers look it up by the number of their patches, so that several sizes in one step, as in
    multi-crop training with gradient checkpointing, do not get mixed up. Two grids of equally
    many patches, such as 8×16 and 16×8, cannot be told apart in one checkpointed step.
    """

    def __init__(self) -> None:
        self._grids: dict[int, tuple[int, int]] = {}

    def __call__(self, patch_embed: nn.Module, args: tuple, output: Any) -> None:
        height, width = _read_grid(patch_embed, args, output)
        self._grids[height * width] = (height, width)

    def of(self, num_patches: int) -> tuple[int, int]:
        """The latest grid (rows, columns) of so many patches.

        Raises:
            ValueError: if there was none.
        """
        if num_patches not in self._grids:
            grids = ', '.join(f'{h}×{w}' for h, w in self._grids.values()) or 'none'
            raise ValueError(
                f'attention over {num_patches} patches, but the patch embedding made these '
                f'grids: {grids}. GAug needs all patches of the image, row by row, after the '
                'prefix tokens: none dropped, merged or added'
            )
        return self._grids[num_patches]


def can_tell_grid(patch_embed: nn.Module) -> bool:
    """Whether a patch embedding is one of timm's or of OpenMMLab's, which tell their grid."""
    return hasattr(patch_embed, 'dynamic_feat_size') or hasattr(patch_embed, 'init_out_size')


def _read_grid(patch_embed: Any, args: tuple, output: Any) -> tuple[int, int]:
    if isinstance(output, Tensor):  # timm
        return patch_embed.dynamic_feat_size(args[0].shape[-2:])
    _, grid_size = output  # mmpretrain, mmseg
    return grid_size
