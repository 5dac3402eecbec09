_base_ = [
    '../../_base_/models/demo_classifier.py',
    '../../_base_/datasets/digit_objects.py',
    '../../_base_/schedules/demo_finetune_4e.py',
    '../../_base_/runtime_demo_pretrain.py',
]

model = dict(
    backbone=dict(type='locat_mm.LocAtViT', gaug=False, out_type='cls_token'),
    neck=None,
    init_cfg=dict(type='Pretrained', checkpoint='work_dirs/demo/vit/seed0/classify/epoch_8.pth'),
)
