# LocAtViT-Tiny, and how its features are read. A leaf puts it into a task's model.
backbone = dict(type='locat_mm.LocAtViT', arch='tiny', img_size=224, patch_size=16, gaug=True)
embed_dim = 192
# Pretraining: PRR reads all final-normed tokens, its [CLS] goes to the head.
pretraining = dict(out_type='raw', drop_path_rate=0.1)
neck = dict(type='locat_mm.PatchRepresentationRefinement', num_heads=3, pool='cls_token')
image_mean = [127.5, 127.5, 127.5]
image_std = [127.5, 127.5, 127.5]
