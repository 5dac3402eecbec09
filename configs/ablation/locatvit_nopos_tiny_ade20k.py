# LocAtViT without position embedding.
_base_ = ['../locat/locatvit_tiny_ade20k.py']

model = dict(
    backbone=dict(
        pos_embed='none',
        init_cfg=dict(checkpoint='work_dirs/locatvit_nopos_tiny_imagenet/epoch_300.pth'),
    )
)
