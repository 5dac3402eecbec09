_base_ = ['../ablation/vit_fixed_segment.py']

# 16 squared patches are as wide in the image as the ablation's 4: a patch has half the side.
model = dict(
    data_preprocessor=dict(test_cfg=dict(size_divisor=4)),
    backbone=dict(
        variance=16.0,
        backbone=dict(patch_size=4),
        init_cfg=dict(checkpoint='work_dirs/vit_patch4_classify/epoch_8.pth'),
    ),
)
