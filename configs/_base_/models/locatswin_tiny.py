# LocAtSwin-Tiny: GAug in every attention layer, PRR before the head.
_base_ = ['swin_tiny.py']

backbone = dict(gaug=True)
# PRR reads the final-normed last map, the mean of its output goes to the head.
pretraining = dict(out_type='featmap')
neck = dict(
    _delete_=True,
    type='locat_mm.PatchRepresentationRefinement',
    num_heads=24,
    pool='avg',
)
pretrained = dict(checkpoint='work_dirs/locatswin_tiny_imagenet/epoch_300.pth')
