# LocAtViT-Tiny: GAug in every attention layer, PRR before the head.
_base_ = ['vit_tiny.py']

backbone = dict(gaug=True)
# PRR reads all final-normed tokens, its [CLS] goes to the head.
pretraining = dict(out_type='raw')
neck = dict(
    _delete_=True,
    type='locat_mm.PatchRepresentationRefinement',
    num_heads=3,
    pool='cls_token',
)
# The authors' weights.
pretrained = dict(checkpoint='hf-hub:sinahmr/locatvit_tiny')
