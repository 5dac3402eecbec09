# A ViT small enough for two cores, and how its features are read.
backbone = dict(
    type='locat_mm.LocAtViT',
    arch=dict(embed_dim=64, depth=4, num_heads=2),
    img_size=48,
    patch_size=8,
    gaug=False,
)
out_channels = 64
pretraining = dict(out_type='cls_token')
neck = None
