# LocAtViT-Small: GAug in every attention layer, PRR before the head.
_base_ = ['vit_small.py']

backbone = dict(gaug=True)
# PRR reads all final-normed tokens, its [CLS] goes to the head.
pretraining = dict(out_type='raw')
neck = dict(
    _delete_=True,
    type='locat_mm.PatchRepresentationRefinement',
    num_heads=6,
    pool='cls_token',
)
pretrained = dict(checkpoint='work_dirs/locatvit_small_imagenet/epoch_300.pth')
