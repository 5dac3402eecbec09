"""Sharded training: parameters, gradients and optimizer state spread over the devices."""

from contextlib import nullcontext
from typing import Any

from mmengine._strategy import DDPStrategy
from mmengine.device import get_device
from mmengine.dist import get_world_size, is_distributed, is_main_process
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    set_model_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_map

from ...checkpoint import write_beside
from ...registry import STRATEGIES, register

__all__ = ['FullyShardStrategy']


@register(STRATEGIES)
class FullyShardStrategy(DDPStrategy):
    """A strategy of mmengine's FlexibleRunner on torch's ``fully_shard`` (FSDP2).

    mmengine's own ``FSDPStrategy`` flattens parameters: weight decay that depends on their
    dimensions is then lost, and each device clips the gradient by the norm of its own part.
    Here parameters keep their shapes, so both work as in an unsharded run. Checkpoints are whole,
    in the format of an unsharded run: the tools test them with the plain config, and each kind of
    run can resume from the other's checkpoints.

    Args:
        blocks: name of the containers whose children are sharded one by one; ``'blocks'`` in
            timm's transformers. The rest of the model is sharded as one.
        kwargs: of mmengine's ``DDPStrategy``, without ``model_wrapper``.

    Raises:
        ValueError: if ``model_wrapper`` is given, or the model has no such blocks.
        RuntimeError: without a launcher.
    """

    def __init__(self, *, blocks: str = 'blocks', **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if self.model_wrapper is not None:
            raise ValueError(f'fully_shard wraps nothing, so {self.model_wrapper=} has no meaning')
        self.blocks = blocks

    def _wrap_model(self, model: nn.Module) -> nn.Module:
        if not is_distributed():
            raise RuntimeError(
                'sharding needs a launcher: train with tools/dist_train.sh; '
                'test with the plain config'
            )
        blocks = [
            block
            for name, container in model.named_modules()
            if name.rpartition('.')[2] == self.blocks
            for block in container.children()
        ]
        if not blocks:
            raise ValueError(f'{type(model).__name__} has no {self.blocks!r} that could be sharded')
        device = get_device()
        model = self.convert_model(model.to(device))
        mesh = init_device_mesh(device, (get_world_size(),))
        for block in blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)
        return model

    def save_checkpoint(self, filename: str, **kwargs: Any) -> None:
        """As :class:`DDPStrategy`: the main process writes."""
        # All processes must gather, before DDPStrategy leaves all but one out.
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        self._whole_model = get_model_state_dict(self.model, options=options)
        self._whole_optimizer = _gather(self.optim_wrapper.state_dict())
        # mmengine's strategy writes in place, so that a kill would leave half a file.
        is_written_beside = is_main_process() and '://' not in filename
        with write_beside(filename) if is_written_beside else nullcontext(filename) as target:
            super().save_checkpoint(str(target), **kwargs)
        del self._whole_model, self._whole_optimizer

    def model_state_dict(self) -> dict:
        """The whole weights; only while a checkpoint is saved."""
        return self._whole_model

    def optim_state_dict(self) -> dict:
        """The whole optimizer state; only while a checkpoint is saved."""
        return self._whole_optimizer

    def load_model_state_dict(
        self, state_dict: dict, *, strict: bool = False, **kwargs: Any
    ) -> None:
        """Load whole weights; each process keeps its part."""
        options = StateDictOptions(full_state_dict=True, strict=strict)
        set_model_state_dict(self.model, state_dict, options=options)

    def load_optim_state_dict(self, state_dict: dict) -> None:
        """Load a whole optimizer state."""
        groups = self.optim_wrapper.optimizer.param_groups
        # An optimizer numbers its parameters through all groups.
        parameters = [parameter for group in groups for parameter in group['params']]
        state = {
            index: {name: _shard_like(value, parameters[index]) for name, value in values.items()}
            for index, values in state_dict['state'].items()
        }
        super().load_optim_state_dict({**state_dict, 'state': state})


# torch.distributed.checkpoint names an optimizer's parameters, where an unsharded run numbers them,
# so the optimizer's state is gathered and sharded here.
def _gather(tree: Any) -> Any:
    """Replace sharded tensors anywhere in dicts and lists by whole ones on the CPU."""
    return tree_map(lambda x: x.full_tensor().cpu() if isinstance(x, DTensor) else x, tree)


def _shard_like(value: Any, own: Tensor) -> Any:
    """Shard a whole tensor like another of its shape; return anything else unchanged."""
    if isinstance(own, DTensor) and isinstance(value, Tensor) and value.shape == own.shape:
        return distribute_tensor(value.to(own.device), own.device_mesh, own.placements)
    return value
