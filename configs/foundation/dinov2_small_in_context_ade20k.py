_base_ = [
    '../_base_/models/foundation_in_context.py',
    '../_base_/datasets/in_context_ade20k.py',
    '../_base_/runtime_segment.py',
]

model = dict(
    backbone=dict(
        model_name='vit_small_patch14_dinov2.lvd142m',
        init_cfg=dict(checkpoint='timm:vit_small_patch14_dinov2.lvd142m'),
    ),
)
