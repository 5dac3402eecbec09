"""DINO's steps, held to a computation by hand in float64."""

import copy
import math

import numpy as np
import pytest
import torch
from mmpretrain.models.utils import CosineEMA
from mmpretrain.registry import MODELS as MMPRETRAIN
from mmseg.registry import MODELS as MMSEG
from torch.utils._python_dispatch import TorchDispatchMode

from locat_mm.registry import MODELS
from tests.support.dino import (
    MAX_ITERS,
    build,
    make_crops,
    project_by_hand,
    set_progress,
    train,
    train_one_of_two,
)
from tests.support.processes import run_in_two

#: timm resamples position embeddings in float32.
EXACT = dict(rtol=1e-6, atol=1e-7)


def features_by_hand(backbone, images):
    """The [CLS] of PRR, head by head."""
    (tokens,) = backbone(images)
    refined = []
    for x in tokens.chunk(2, dim=-1):
        refined.append((x[:, :1] @ x.mT / math.sqrt(8)).softmax(-1) @ x)
    return torch.cat(refined, dim=-1)[:, 0]


def logits_by_hand(backbone, head, images):
    return project_by_hand(head, features_by_hand(backbone, images))


def loss_by_hand(student, targets):
    """Pairs of different crops, as in the paper's pseudocode."""
    terms = []
    for i, target in enumerate(targets):
        for v, logits in enumerate(student):
            if v != i:
                terms.append(-(target * (logits / 0.1).softmax(-1).log()).sum(-1).mean())
    return sum(terms) / len(terms)


def entropy_by_hand(distribution):
    return -(distribution * distribution.log()).sum(-1)


def check_gradients(model, loss_of):
    """Of some parameters, by finite differences."""
    for name in (
        'backbone.blocks.0.attn.gaug.log_var.weight',
        'backbone.blocks.1.attn.gaug.log_alpha.weight',
        'backbone.blocks.1.attn.gaug.log_var.bias',
        'head.mlp.0.weight',
        'head.last_layer.weight',
    ):
        parameter = model.get_parameter(name)
        entry, losses = parameter.data.view(-1)[:1], []
        for shift in (1e-5, -2e-5, 1e-5):
            entry += shift
            with torch.no_grad():
                losses.append(loss_of(model.backbone, model.head.state_dict()).item())
        gradient = parameter.grad.view(-1)[0].item()
        assert abs(gradient) > 1e-6, name
        assert gradient == pytest.approx((losses[0] - losses[1]) / 2e-5, rel=1e-4), name


def test_two_steps_equal_a_computation_by_hand():
    """Loss, centre, teacher, what is logged, and gradients by finite differences."""
    set_progress(epoch=1)
    temp = 0.04 + (0.07 - 0.04) / 3  # the second of four epochs of warm-up
    model = build().train()
    teacher_backbone = copy.deepcopy(model.backbone).eval()
    teacher_head = {k: v.clone() for k, v in model.head.state_dict().items()}
    centre = torch.zeros(12, dtype=torch.double)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    for step in range(2):
        crops = make_crops(step)
        kept = 1.0 if step == 0 else 1 - 0.2 * (1 + math.cos(math.pi * step / MAX_ITERS)) / 2
        with torch.no_grad():
            for ours, new in zip(
                [*teacher_backbone.parameters(), *teacher_head.values()],
                [*model.backbone.parameters(), *model.head.parameters()],
                strict=True,
            ):
                ours.copy_(kept * ours + (1 - kept) * new)
            seen = [logits_by_hand(teacher_backbone, teacher_head, crop) for crop in crops[:2]]
            targets = [((logits - centre) / temp).softmax(-1) for logits in seen]
            unit = torch.cat([features_by_hand(teacher_backbone, crop) for crop in crops[:2]])
            unit = unit / unit.norm(dim=1, keepdim=True)

        def loss_of(backbone, head, crops=crops, targets=targets):
            student = [logits_by_hand(backbone, head, crop) for crop in crops]
            return loss_by_hand(student, targets)

        expected = loss_of(model.backbone, model.head.state_dict())
        entropy = entropy_by_hand(torch.cat(targets)).mean()
        centre = 0.9 * centre + 0.1 * torch.cat(seen).mean(0)

        optimizer.zero_grad()
        logged = model.loss(crops)
        logged['loss'].backward()
        torch.testing.assert_close(logged['loss'], expected, **EXACT)
        torch.testing.assert_close(model.loss_module.center[0], centre, **EXACT)
        for name, value in teacher_backbone.named_parameters():
            torch.testing.assert_close(
                model.teacher.module['backbone'].get_parameter(name).data, value.data, **EXACT
            )
        torch.testing.assert_close(logged['entropy'], entropy, **EXACT)
        torch.testing.assert_close(
            logged['batch_entropy'], entropy_by_hand(torch.cat(targets).mean(0)), **EXACT
        )
        torch.testing.assert_close(logged['kl'], (expected - entropy).detach(), **EXACT)
        spread = unit.numpy().std(axis=0).mean() * 4
        assert logged['spread'].item() == pytest.approx(spread, rel=1e-5)
        assert set(logged) == {'loss', 'entropy', 'batch_entropy', 'kl', 'spread'}
        if step == 1:
            check_gradients(model, loss_of)
        optimizer.step()


def test_two_processes_equal_one(tmp_path):
    """Weights, teacher and centre after two steps; the loss is the mean of theirs."""
    run_in_two(train_one_of_two, tmp_path)
    state, losses = train(build(), slice(None))
    found = [torch.load(tmp_path / f'{rank}.pt') for rank in range(2)]
    for ours, _ in found:
        assert ours.keys() == state.keys()
        for name, value in state.items():
            torch.testing.assert_close(ours[name], value, **EXACT, msg=name)
    for step, loss in enumerate(losses):
        theirs = [each[step] for _, each in found]
        assert theirs[0] != theirs[1]
        torch.testing.assert_close(sum(theirs) / 2, loss, **EXACT)


@pytest.mark.parametrize('batch, sides', [(1, (16, 16, 8)), (2, (16, 16)), (2, (16, 16, 8, 12))])
def test_other_batches_and_crops(batch, sides):
    """A single image, no local crops, three sizes."""
    set_progress()
    model = build().train()
    logged = model.loss(make_crops(0, batch, sides))
    logged['loss'].backward()
    assert all(value.isfinite() for value in logged.values())
    trained = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained)


def test_only_the_student_drops_paths():
    set_progress()
    model = build(backbone=dict(drop_path_rate=0.9)).train()
    assert model.backbone.blocks[1].drop_path1.training
    assert not any(part.training for part in model.teacher.modules())
    crops = make_crops(0)
    first, second = (model.loss(crops)['loss'] for _ in range(2))
    assert first != second
    features = [model(crops[0], mode='tensor') for _ in range(2)]
    assert len(features[0]) == 1 and features[0][0].shape == (4, 16)
    assert torch.equal(features[0][0], features[1][0])
    teacher = copy.deepcopy(model.teacher.module['backbone'])
    torch.testing.assert_close(features[0][0], features_by_hand(teacher, crops[0]), **EXACT)


class CountReads(TorchDispatchMode):
    """How often a number is read from a device, which waits for it."""

    reads = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.reads += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **kwargs or {})


def test_teacher_waits_for_the_device_once_and_not_per_parameter():
    """The same averages as mmpretrain's, which reads its step for each of them."""
    set_progress(epoch=1)
    model = build()
    student = model._student()
    ours, stock = model.teacher, CosineEMA(student, momentum=0.2)
    reads = []
    for _ in range(3):
        for parameter in student.parameters():
            parameter.data += 0.1
        for teacher in (ours, stock):
            with CountReads() as counted:
                teacher.update_parameters(student)
            reads.append(counted.reads)
        for name, value in stock.module.named_parameters():
            torch.testing.assert_close(ours.module.get_parameter(name), value, **EXACT)
    assert reads[-2] <= 3 < len(list(student.parameters())) <= reads[-1]


def test_evaluation_changes_neither_teacher_nor_centre():
    set_progress()
    model = build().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.loss(make_crops(0))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_plain_vit_reads_cls():
    set_progress()
    model = build(backbone=dict(gaug=False, out_type='cls_token'), neck=None).train()
    assert model.loss(make_crops(0))['loss'].isfinite()
    assert not any('neck' in name or 'gaug' in name for name in model.state_dict())


def test_collapse_shows():
    """Features that are all the same have no spread; so do distributions."""
    set_progress()
    model = build().train()
    healthy = model.loss(make_crops(0, batch=32))
    assert 0.3 < healthy['spread'] <= 1.01 and healthy['kl'] > 0.05
    model = build(neck=None, backbone=dict(out_type='cls_token')).train()
    with torch.no_grad():  # [CLS] hears nothing of the image
        for name, parameter in model.backbone.named_parameters():
            if 'attn.proj' in name or 'mlp.fc2' in name:
                parameter.zero_()
    assert model.loss(make_crops(0))['spread'] < 1e-6

    loss = MODELS.build(dict(type='DINOLoss', out_channels=12))
    same = torch.zeros(2, 4, 12)
    uniform = loss(same, same)
    assert uniform['entropy'] == pytest.approx(math.log(12), rel=1e-6)
    assert uniform['kl'] == pytest.approx(0, abs=1e-6)
    same[..., 3] = 1.0
    one = loss(same, same)
    assert one['batch_entropy'] < 1e-6


def test_half_precision_logits():
    """As under autocast: the loss is computed in float32."""
    loss = MODELS.build(dict(type='DINOLoss', out_channels=4096)).eval()
    student, teacher = torch.randn(4, 2, 4096).half(), torch.randn(2, 2, 4096).half()
    half, single = loss(student, teacher), loss(student.float(), teacher.float())
    for name, value in single.items():
        assert half[name].dtype == torch.float32
        torch.testing.assert_close(half[name], value, rtol=0, atol=0)


@pytest.mark.parametrize('warmup', [0, 1, 5])
def test_teacher_temperature(warmup):
    loss = MODELS.build(
        dict(type='DINOLoss', out_channels=3, teacher_temp=0.07, warmup_epochs=warmup)
    )
    expected = [*np.linspace(0.04, 0.07, warmup), 0.07, 0.07]
    found = [loss.teacher_temp_in(epoch) for epoch in range(warmup + 2)]
    assert found == pytest.approx(expected)


def test_names_resolve_from_every_scope():
    for registry in (MODELS, MMPRETRAIN, MMSEG):
        for name in ('DINO', 'DINOHead', 'DINOLoss', 'DenseDINO'):
            assert registry.get(name) is registry.get(f'locat_mm.{name}') is not None


@pytest.mark.parametrize(
    'changes, message',
    [
        (dict(head=dict(out_channels=1)), 'out_channels must be at least 2, got 1'),
        (dict(head=dict(bottleneck_channels=0)), 'bottleneck_channels=0'),
        (dict(base_momentum=0.0), r'base_momentum must be within \(0, 1\), got 0.0'),
        (dict(loss=dict(teacher_temp=0.0)), 'temperatures must be positive, .*teacher_temp=0.0'),
        (dict(loss=dict(warmup_epochs=-1)), 'warmup_epochs must not be negative, got -1'),
        (dict(loss=dict(center_momentum=1.0)), 'center_momentum must be within .*got 1.0'),
    ],
)
def test_mistakes_in_settings_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        build(**changes)


def test_mistakes_in_inputs_are_named():
    set_progress()
    model = build()
    crops = make_crops(0)
    with pytest.raises(TypeError, match='got Tensor: the pipeline needs MultiView'):
        model.loss(crops[0])
    with pytest.raises(ValueError, match='2 global crops needed, got 1 crops'):
        model.loss(crops[:1])
    model = build(neck=None)
    with pytest.raises(ValueError, match=r"\(8, 17, 16\): the backbone needs out_type='cls_token'"):
        model.loss(crops)


def test_a_bad_batch_stays_out_of_the_centre():
    loss = MODELS.build(dict(type='DINOLoss', out_channels=4)).train()
    logits = torch.randn(2, 3, 4)
    loss(logits, logits, 0)
    before = loss.center.clone()
    assert before.abs().sum() > 0
    logits[1, 2, 3] = math.nan
    loss(logits, logits, 0)
    assert torch.equal(loss.center, before)
