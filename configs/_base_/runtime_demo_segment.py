# runtime_segment.py for the demo: a checkpoint every 200 iterations, fewer of them.
_base_ = ['runtime_segment.py']

default_hooks = dict(logger=dict(interval=50), checkpoint=dict(interval=200, max_keep_ckpts=2))
