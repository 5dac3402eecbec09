# LocAtJumbo-Small: GAug in every attention layer, PRR before the head.
_base_ = ['jumbo_small.py']

backbone = dict(gaug=True)
# PRR reads all final-normed tokens, its class tokens go to the head.
pretraining = dict(out_type='raw')
neck = dict(
    _delete_=True,
    type='locat_mm.PatchRepresentationRefinement',
    num_heads=6,
    pool='prefix',
    num_prefix_tokens=6,
)
pretrained = dict(checkpoint='work_dirs/locatjumbo_small_imagenet/epoch_300.pth')
