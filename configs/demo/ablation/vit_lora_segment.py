_base_ = ['../vit_segment.py']

model = dict(
    backbone=dict(init_cfg=dict(checkpoint='work_dirs/vit_lora_classify/tuned.pth')),
)
