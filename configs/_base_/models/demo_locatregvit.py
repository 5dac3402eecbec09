# The same with LocAt: GAug in every block, PRR before the head.
_base_ = ['demo_regvit.py']

backbone = dict(gaug=True)
pretraining = dict(out_type='raw')
neck = dict(
    _delete_=True,
    type='locat_mm.PatchRepresentationRefinement',
    num_heads=2,
    pool='cls_token',
)
