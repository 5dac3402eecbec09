# The same with LocAt: GAug in every block, PRR before the head.
_base_ = ['demo_jumbo.py']

backbone = dict(gaug=True)
pretraining = dict(out_type='raw')
neck = dict(
    _delete_=True,
    type='locat_mm.PatchRepresentationRefinement',
    num_heads=2,
    pool='prefix',
    num_prefix_tokens=3,
)
