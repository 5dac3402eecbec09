_base_ = [
    '../_base_/models/in_context_segmentor.py',
    '../_base_/datasets/in_context_ade20k.py',
    '../_base_/runtime_segment.py',
]

model = dict(
    backbone=dict(
        type='locat_mm.LocAtViT',
        arch='small',
        init_cfg=dict(checkpoint='work_dirs/locatvit_small_imagenet/epoch_300.pth'),
    ),
)
