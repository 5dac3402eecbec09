_base_ = ['./locatvit_tiny_drive.py']

model = dict(
    backbone=dict(arch='base', init_cfg=dict(checkpoint='hf-hub:sinahmr/locatvit_base')),
    decode_head=dict(in_channels=768),
)
