# ViT-Base, and how its features are read.
backbone = dict(type='locat_mm.LocAtViT', arch='base', img_size=224, patch_size=16, gaug=False)
patch_size = 16
out_channels = 768
# Pretraining: the final-normed [CLS] goes to the head.
pretraining = dict(out_type='cls_token', drop_path_rate=0.4)
neck = None
head = dict(
    in_channels=768,
    init_cfg=dict(type='TruncNormal', layer='Linear', std=0.02, bias=0.0),
)
pretrained = dict(type='Pretrained', checkpoint='work_dirs/vit_base_imagenet/epoch_300.pth')
# Maps of four blocks, brought to four scales.
pyramid = dict(
    out_indices=(2, 5, 8, 11),
    channels=[768, 768, 768, 768],
    neck=dict(type='Feature2Pyramid', embed_dim=768, norm_cfg=dict(type='SyncBN')),
)
layer_decay_rate = 0.65
