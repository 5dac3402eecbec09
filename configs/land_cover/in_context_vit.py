_base_ = ['./in_context_locatvit.py']

model = dict(
    backbone=dict(gaug=False, init_cfg=dict(checkpoint='work_dirs/vit_classify/epoch_5.pth'))
)
