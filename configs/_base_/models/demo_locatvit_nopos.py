# LocAt without position embedding.
_base_ = ['demo_locatvit.py']

backbone = dict(pos_embed='none')
