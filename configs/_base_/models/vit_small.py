# ViT-Small, and how its features are read.
backbone = dict(type='locat_mm.LocAtViT', arch='small', img_size=224, patch_size=16, gaug=False)
patch_size = 16
out_channels = 384
# Pretraining: the final-normed [CLS] goes to the head.
pretraining = dict(out_type='cls_token', drop_path_rate=0.2)
neck = None
head = dict(
    in_channels=384,
    init_cfg=dict(type='TruncNormal', layer='Linear', std=0.02, bias=0.0),
)
pretrained = dict(type='Pretrained', checkpoint='work_dirs/vit_small_imagenet/epoch_300.pth')
# Maps of four blocks, brought to four scales.
pyramid = dict(
    out_indices=(2, 5, 8, 11),
    channels=[384, 384, 384, 384],
    neck=dict(type='Feature2Pyramid', embed_dim=384, norm_cfg=dict(type='SyncBN')),
)
layer_decay_rate = 0.65
