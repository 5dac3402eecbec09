# Linear decoding on digit_scenes' scenes, 600 iterations: minutes on two CPU cores.
_base_ = ['decode_20k.py']

optim_wrapper = dict(optimizer=dict(lr=3e-3))
param_scheduler = [
    dict(
        type='OneCycleLR',
        eta_max=3e-3,
        total_steps=600,
        pct_start=0.25,
        anneal_strategy='linear',
        div_factor=1e4,
        final_div_factor=1e4,
        by_epoch=False,
    )
]
train_cfg = dict(max_iters=600, val_interval=600)
