_base_ = ['../ablation/in_context_vit_fixed.py']

# 16 squared patches are as wide in the image as the ablation's 4: a patch has half the side.
model = dict(
    backbone=dict(
        variance=16.0,
        backbone=dict(patch_size=4),
        init_cfg=dict(checkpoint='work_dirs/vit_patch4_classify/epoch_8.pth'),
    ),
    # A quarter of the patches of 2,000 scenes: as many as the demo has with patches of 8.
    max_patches=162000,
)
