# Swin-Tiny, and how its features are read.
backbone = dict(
    type='locat_mm.LocAtSwin', arch='tiny', img_size=224, patch_size=4, window_size=7, gaug=False
)
patch_size = 4
out_channels = 768
# Pretraining: the mean of the final-normed last map goes to the head.
pretraining = dict(out_type='avg_featmap', drop_path_rate=0.1)
neck = None
head = dict(
    in_channels=768,
    init_cfg=dict(type='TruncNormal', layer='Linear', std=0.02, bias=0.0),
)
pretrained = dict(type='Pretrained', checkpoint='work_dirs/swin_tiny_imagenet/epoch_300.pth')
# Maps of all four stages.
pyramid = dict(
    out_indices=(0, 1, 2, 3),
    channels=[96, 192, 384, 768],
    neck=None,
)
layer_decay_rate = 0.9
