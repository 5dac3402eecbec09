# The demo's ViT with GAug attached, from where it stands; PRR before the head.
_base_ = ['demo_vit.py']

attached = dict(type='locat_mm.LocAt', start='identity')
pretraining = dict(out_type='raw')
neck = dict(
    _delete_=True,
    type='locat_mm.PatchRepresentationRefinement',
    num_heads=2,
    pool='cls_token',
)
