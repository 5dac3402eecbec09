# PRR without GAug.
_base_ = ['demo_locatvit.py']

backbone = dict(gaug=False)
