_base_ = ['../locatvit_segment.py']

model = dict(
    data_preprocessor=dict(test_cfg=dict(size_divisor=4)),
    backbone=dict(
        patch_size=4, init_cfg=dict(checkpoint='work_dirs/locatvit_patch4_classify/epoch_8.pth')
    ),
)
