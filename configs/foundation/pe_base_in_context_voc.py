_base_ = [
    '../_base_/models/foundation_in_context.py',
    '../_base_/datasets/in_context_voc.py',
    '../_base_/runtime_segment.py',
]

model = dict(
    data_preprocessor=dict(
        mean=[127.5, 127.5, 127.5],
        std=[127.5, 127.5, 127.5],
    ),
    backbone=dict(
        model_name='vit_pe_core_base_patch16_224.fb',
        init_cfg=dict(checkpoint='timm:vit_pe_core_base_patch16_224.fb'),
    ),
    num_classes=21,
)
