# ViT-Tiny, and how its features are read. A leaf puts it into a task's model.
backbone = dict(type='locat_mm.LocAtViT', arch='tiny', img_size=224, patch_size=16, gaug=False)
embed_dim = 192
# Pretraining: the final-normed [CLS] goes to the head.
pretraining = dict(out_type='cls_token', drop_path_rate=0.1)
neck = None
image_mean = [127.5, 127.5, 127.5]
image_std = [127.5, 127.5, 127.5]
