"""Puts NaN into a run; a module of its own, so that a config can import it."""

import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS

NAN = float('nan')


@HOOKS.register_module()
class PlantNaN(Hook):
    """Plants NaN while iterations ``first`` to ``last`` run, in one process.

    Args:
        where: 'image'; 'output NAME' of a module; 'gradient NAME' or 'parameter NAME' of a
            parameter; 'after NAME': the same parameter, when the iteration is over.
    """

    priority = 'VERY_HIGH'

    def __init__(self, where, first, last=10**9, rank=0):
        self.kind, _, self.name = where.partition(' ')
        self.first, self.last, self.rank = first, last, rank

    def is_on(self, runner):
        return self.first <= runner.iter <= self.last and get_rank() == self.rank

    def before_train(self, runner):
        self.model = runner.model.module if is_model_wrapper(runner.model) else runner.model

        def poison(value):
            return value * NAN if self.is_on(runner) else value

        if self.kind == 'output':
            module = self.model.get_submodule(self.name)
            module.register_forward_hook(lambda module, args, output: poison(output))
        elif self.kind == 'gradient':
            self.model.get_parameter(self.name).register_hook(poison)

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if not self.is_on(runner):
            return
        if self.kind == 'image':
            images = [image.float() for image in data_batch['inputs']]
            images[1][1, 5, 7] = NAN
            data_batch['inputs'] = images
        elif self.kind == 'parameter':
            self.write()

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if self.kind == 'after' and self.is_on(runner):
            self.write()

    @torch.no_grad()
    def write(self):
        self.model.get_parameter(self.name).view(-1)[3] = NAN
