"""FullyShardStrategy and its configs in one process; over several: test_tools/test_two_nodes.py."""

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import STRATEGIES, init_default_scope
from torch import distributed
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from locat_mm.config import load_config
from locat_mm.registry import MODELS

LEAVES = ('locatvit_base_imagenet', 'locatjumbo_base_imagenet')
TRANSFORMER = dict(embed_dim=24, depth=2, num_heads=3)
SMALL = {
    'ViT': (dict(arch=TRANSFORMER, out_type='raw'), 2),
    'RoPEViT': (dict(arch=TRANSFORMER, out_type='raw'), 2),
    'Jumbo': (dict(arch=TRANSFORMER, out_type='raw', num_jumbo_tokens=2), 2),
    'Swin': (dict(arch=dict(embed_dim=12, depths=(2, 1), num_heads=(2, 3)), out_type='raw'), 3),
}


@pytest.fixture
def group():
    distributed.init_process_group('gloo', store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.fixture
def strategy(root, tmp_path):
    cfg = load_config(str(root / 'configs' / 'locat' / f'{LEAVES[0]}_fsdp.py'))
    return STRATEGIES.build(dict(cfg.strategy, work_dir=str(tmp_path)))


@pytest.mark.parametrize('leaf', LEAVES)
def test_a_sharded_leaf_is_the_plain_one_sharded(root, leaf):
    plain, sharded = (
        load_config(str(root / 'configs' / 'locat' / f'{leaf}{ending}.py'), work_dir='w').to_dict()
        for ending in ('', '_fsdp')
    )
    added = {key: sharded.pop(key) for key in set(sharded) - set(plain)}
    assert set(added) == {'runner_type', 'strategy'}
    assert sharded == plain


@pytest.mark.parametrize('family', SMALL)
def test_blocks_are_sharded_and_compute_the_same(family, group, strategy):
    settings, num_blocks = SMALL[family]
    settings = dict(settings, type=f'locat_mm.LocAt{family}', img_size=64)
    plain, sharded = MODELS.build(settings), MODELS.build(settings)
    sharded.load_state_dict(plain.state_dict())
    sharded = strategy._wrap_model(sharded)
    assert all(isinstance(parameter, DTensor) for parameter in sharded.parameters())
    assert sum(isinstance(module, FSDPModule) for module in sharded.modules()) == num_blocks + 1
    images = torch.randn(2, 3, 64, 64)
    for model in (plain, sharded):
        model(images)[-1].square().mean().backward()
    for (name, parameter), other in zip(
        plain.named_parameters(), sharded.parameters(), strict=True
    ):
        if parameter.grad is not None:
            torch.testing.assert_close(other.grad.full_tensor(), parameter.grad, msg=name)


def test_weight_decay_is_that_of_the_plain_run(root, group, strategy):
    """It goes by the dimensions of a parameter, which must outlast the sharding."""
    cfg = load_config(str(root / 'configs' / 'locat' / f'{LEAVES[0]}_fsdp.py'))
    init_default_scope(cfg.default_scope)
    cfg.model.backbone.arch, cfg.model.head.in_channels = TRANSFORMER, 24
    cfg.optim_wrapper.type = 'OptimWrapper'  # AMP needs an accelerator
    decays = []
    for is_sharded in (False, True):
        model = MODELS.build(cfg.model)
        if is_sharded:
            model = strategy._wrap_model(model)
        groups = build_optim_wrapper(model, Config(dict(w=cfg.optim_wrapper)).w).param_groups
        decays.append([group['weight_decay'] for group in groups])
    assert decays[0] == decays[1]
    assert {0.0, 0.05} == set(decays[0])


def test_what_cannot_be_sharded_is_one_clear_error(root, tmp_path, strategy, request):
    with pytest.raises(RuntimeError, match='train with tools/dist_train.sh; test with the plain'):
        strategy._wrap_model(torch.nn.Linear(2, 2))
    request.getfixturevalue('group')
    with pytest.raises(ValueError, match="Linear has no 'blocks' that could be sharded"):
        strategy._wrap_model(torch.nn.Linear(2, 2))
    wrapper = dict(type='MMFullyShardedDataParallel')
    with pytest.raises(ValueError, match='MMFullyShardedDataParallel'):
        STRATEGIES.build(
            dict(type='FullyShardStrategy', work_dir=str(tmp_path), model_wrapper=wrapper)
        )
