# GAug without PRR.
_base_ = ['demo_vit.py']

backbone = dict(gaug=True)
