"""DenseDINO, held to a computation patch by patch in float64."""

import pytest
import torch
from mmengine.optim import build_optim_wrapper

from locat_mm.layers import attach
from locat_mm.registry import MODELS
from tests.support.dino import build, make_crops, project_by_hand, set_progress


def dense(**changes):
    model = build(type='DenseDINO', backbone=dict(out_type='featmap'), neck=None, **changes)
    with torch.no_grad():  # a teacher that is not the student
        for parameter in model.teacher.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model


def patches(backbone, crop):
    """Features ``[B, N, C]``, row by row."""
    (features,) = backbone(crop)
    rows = [
        features[:, :, y, x] for y in range(features.shape[2]) for x in range(features.shape[3])
    ]
    return torch.stack(rows, dim=1)


def test_loss_is_that_of_matched_patches():
    set_progress()
    model = dense().eval()
    crops = make_crops(0, sides=(16, 16))
    student, teacher = model._student(), model.teacher.module
    center, temp = model.loss_module.center, 0.04
    terms = []
    for mine, other in ((0, 1), (1, 0)):
        own, known = (
            patches(student['backbone'], crops[mine]),
            patches(teacher['backbone'], crops[other]),
        )
        for image in range(len(own)):
            for patch in own[image]:
                cosines = [torch.cosine_similarity(patch, key, dim=0) for key in known[image]]
                match = known[image][max(range(len(cosines)), key=cosines.__getitem__)]
                target = project_by_hand(teacher['head'].state_dict(), match[None])
                target = ((target - center) / temp).softmax(-1)
                logits = project_by_hand(student['head'].state_dict(), patch[None])
                terms.append(-(target * (logits / 0.1).softmax(-1).log()).sum())
    found = model.loss(crops)
    torch.testing.assert_close(found['loss'], torch.stack(terms).mean())


def test_only_gaug_and_the_head_learn_on_a_frozen_host():
    set_progress()
    host = MODELS.build(
        dict(
            **dict(type='locat_mm.LocAtViT', arch=dict(embed_dim=16, depth=2, num_heads=2)),
            **dict(img_size=16, patch_size=4, gaug=False, out_type='featmap'),
        )
    )
    backbone = attach(host, start='identity', train='gaug')
    model = build(type='DenseDINO', neck=None, backbone=backbone).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    wrapper = build_optim_wrapper(
        model,
        dict(
            optimizer=dict(type='SGD', lr=0.1, weight_decay=0.0),
            constructor='locat_mm.LayerDecayOptimWrapperConstructor',
        ),
    )
    for step in range(2):
        wrapper.update_params(model.loss(make_crops(step, sides=(16, 16)))['loss'])
    changed = [n for n, value in model.state_dict().items() if not torch.equal(value, before[n])]
    student = {name for name in changed if not name.startswith(('teacher.', 'loss_module.'))}
    learned = {name for name, p in model.named_parameters() if '.gaug.' in name or 'head.' in name}
    assert student == {name for name in learned if not name.startswith('teacher.')}
    assert any('.gaug.' in name for name in changed if name.startswith('teacher.'))


def test_features_to_evaluate_are_the_mean_of_the_teachers_patches():
    model = dense()
    (image,) = make_crops(0, sides=(16,))
    expected = patches(model.teacher.module['backbone'], image).mean(1)
    torch.testing.assert_close(model.extract_feat(image)[0], expected)


def test_mistakes_are_named():
    set_progress()
    with pytest.raises(ValueError, match='no objective on the class token, got neck={'):
        build(type='DenseDINO')
    with pytest.raises(ValueError, match=r'base_momentum must be within \(0, 1\), got 2'):
        dense(base_momentum=2)
    model = dense()
    with pytest.raises(TypeError, match='got Tensor: the pipeline needs MultiView'):
        model.loss(make_crops(0)[0])
    with pytest.raises(
        ValueError, match=r'two crops of one size needed, .*\[\(16, 16\), \(8, 8\)\]'
    ):
        model.loss(make_crops(0, sides=(16, 8)))
    model = build(type='DenseDINO', neck=None)  # which returns tokens
    with pytest.raises(ValueError, match=r"features \[B, C, H, W\] expected.*out_type='featmap'"):
        model.loss(make_crops(0, sides=(16, 16)))
