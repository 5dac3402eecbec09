# runtime_pretrain.py for the demo: more log lines, fewer checkpoints.
_base_ = ['runtime_pretrain.py']

default_hooks = dict(logger=dict(interval=25), checkpoint=dict(interval=1, max_keep_ckpts=2))
