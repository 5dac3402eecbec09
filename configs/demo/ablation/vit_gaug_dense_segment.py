_base_ = ['vit_gaug_tuned_segment.py']

model = dict(
    backbone=dict(init_cfg=dict(checkpoint='work_dirs/vit_gaug_dense_classify/tuned.pth')),
)
