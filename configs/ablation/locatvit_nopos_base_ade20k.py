# LocAtViT without position embedding.
_base_ = ['../locat/locatvit_base_ade20k.py']

model = dict(
    backbone=dict(
        pos_embed='none',
        init_cfg=dict(checkpoint='work_dirs/locatvit_nopos_base_imagenet/epoch_300.pth'),
    )
)
