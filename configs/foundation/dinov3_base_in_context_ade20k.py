_base_ = [
    '../_base_/models/foundation_in_context.py',
    '../_base_/datasets/in_context_ade20k.py',
    '../_base_/runtime_segment.py',
]

model = dict(
    backbone=dict(
        model_name='vit_base_patch16_dinov3.lvd1689m',
        init_cfg=dict(checkpoint='timm:vit_base_patch16_dinov3.lvd1689m'),
    ),
)
