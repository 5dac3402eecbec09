_base_ = ['../in_context_vit.py']

model = dict(
    backbone=dict(
        patch_size=4, init_cfg=dict(checkpoint='work_dirs/vit_patch4_classify/epoch_8.pth')
    ),
    # A quarter of the patches of 2,000 scenes: as many as the demo has with patches of 8.
    max_patches=162000,
)
