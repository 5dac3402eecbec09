# Jumbo-Small, and how its features are read.
backbone = dict(
    type='locat_mm.LocAtJumbo',
    arch='small',
    img_size=224,
    patch_size=16,
    num_jumbo_tokens=6,
    gaug=False,
)
patch_size = 16
out_channels = 384
# Pretraining: the final-normed class tokens go to the head side by side.
pretraining = dict(out_type='cls_token', drop_path_rate=0.2)
neck = None
# every class starts at a probability of 1/1000: the bias is -ln 1000
head = dict(
    in_channels=2304,
    init_cfg=dict(type='Constant', layer='Linear', val=0.0, bias=-6.907755),
)
pretrained = dict(type='Pretrained', checkpoint='work_dirs/jumbo_small_imagenet/epoch_300.pth')
# Maps of four blocks, brought to four scales.
pyramid = dict(
    out_indices=(2, 5, 8, 11),
    channels=[384, 384, 384, 384],
    neck=dict(type='Feature2Pyramid', embed_dim=384, norm_cfg=dict(type='SyncBN')),
)
layer_decay_rate = 0.65
