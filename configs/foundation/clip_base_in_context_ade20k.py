_base_ = [
    '../_base_/models/foundation_in_context.py',
    '../_base_/datasets/in_context_ade20k.py',
    '../_base_/runtime_segment.py',
]

model = dict(
    data_preprocessor=dict(
        mean=[122.771, 116.746, 104.094],
        std=[68.501, 66.632, 70.323],
    ),
    backbone=dict(
        model_name='vit_base_patch16_clip_quickgelu_224.openai',
        init_cfg=dict(checkpoint='timm:vit_base_patch16_clip_quickgelu_224.openai'),
    ),
)
