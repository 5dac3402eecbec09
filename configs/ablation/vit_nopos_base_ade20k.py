# ViT without position embedding.
_base_ = ['../vit/vit_base_ade20k.py']

model = dict(
    backbone=dict(
        pos_embed='none',
        init_cfg=dict(checkpoint='work_dirs/vit_nopos_base_imagenet/epoch_300.pth'),
    )
)
