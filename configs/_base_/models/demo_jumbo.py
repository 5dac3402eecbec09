# A Jumbo of the demo's size.
_base_ = ['demo_vit.py']

backbone = dict(type='locat_mm.LocAtJumbo', num_jumbo_tokens=3)
