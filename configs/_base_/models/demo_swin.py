# A Swin of the demo's size: its last map has the ViT's patches and channels.
backbone = dict(
    type='locat_mm.LocAtSwin',
    arch=dict(embed_dim=32, depths=(2, 2), num_heads=(1, 2)),
    img_size=48,
    patch_size=4,
    window_size=6,
    gaug=False,
)
out_channels = 64
pretraining = dict(out_type='avg_featmap')
neck = None
