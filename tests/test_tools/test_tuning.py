"""Merged checkpoints of the demo's tunings, held to the models that were tuned."""

import pytest
import torch
from mmengine.runner.checkpoint import get_state_dict
from tuning import write_tuned

from locat_mm.checkpoint import read_state_dict
from locat_mm.registry import MODELS
from tests.support.dino import build

BACKBONE = dict(
    **dict(type='locat_mm.LocAtViT', arch=dict(embed_dim=16, depth=2, num_heads=2)),
    **dict(img_size=16, patch_size=4, gaug=False, out_type='cls_token'),
)
CLASSIFIER = dict(
    type='mmpretrain.ImageClassifier',
    backbone=BACKBONE,
    head=dict(type='mmpretrain.LinearClsHead', in_channels=16, num_classes=3),
)


def randomize(parameters):
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(torch.randn_like(parameter), alpha=0.3)


@pytest.fixture
def host(tmp_path):
    model = MODELS.build(CLASSIFIER)
    file = tmp_path / 'host.pth'
    torch.save(dict(state_dict=model.state_dict()), file)
    return model, str(file)


def test_lora_is_merged_into_the_layers(host, tmp_path):
    model, file = host
    lora = dict(rank=2, alpha=2, targets=[dict(type='qkv')])
    tuned = MODELS.build(dict(type='mmpretrain.LoRAModel', module=CLASSIFIER, **lora))
    tuned.module.load_state_dict(  # LoRAModel has renamed the layers that it wraps
        {k.replace('.qkv.', '.qkv.original_layer.'): v for k, v in model.state_dict().items()},
        strict=False,
    )
    randomize(p for p in tuned.parameters() if p.requires_grad)
    torch.save(dict(state_dict=get_state_dict(tuned)), tmp_path / 'lora.pth')
    write_tuned(file, str(tmp_path / 'lora.pth'), tmp_path / 'merged.pth')
    image = torch.randn(2, 3, 16, 16)
    before = model.eval()(image, mode='tensor')
    model.load_state_dict(read_state_dict(tmp_path / 'merged.pth'))
    after, expected = model(image, mode='tensor'), tuned.eval()(image, mode='tensor')
    torch.testing.assert_close(after, expected)
    assert not torch.allclose(after[0], before[0], atol=1e-2)


def test_gaug_of_the_teacher_joins_the_host(host, tmp_path):
    model, file = host
    attached = dict(type='locat_mm.LocAt', backbone=dict(BACKBONE, out_type='featmap'))
    dino = build(type='DenseDINO', neck=None, backbone=MODELS.build(attached)).float()
    randomize(dino.teacher.parameters())
    torch.save(dict(state_dict=dino.state_dict()), tmp_path / 'dino.pth')
    write_tuned(file, str(tmp_path / 'dino.pth'), tmp_path / 'merged.pth')
    backbone = dict(type='locat_mm.LocAt', backbone=BACKBONE)
    merged = MODELS.build(dict(CLASSIFIER, backbone=backbone))
    merged.load_state_dict(read_state_dict(tmp_path / 'merged.pth'))
    teacher, own = dino.teacher.module.state_dict(), model.state_dict()
    for key, value in merged.state_dict().items():
        assert torch.equal(value, (teacher if '.gaug.' in key else own)[key]), key


def test_a_checkpoint_without_a_tuning_is_an_error(host, tmp_path):
    _, file = host
    with pytest.raises(ValueError, match='host.pth has neither LoRA nor GAug of a teacher'):
        write_tuned(file, file, tmp_path / 'merged.pth')
    assert not (tmp_path / 'merged.pth').exists()
