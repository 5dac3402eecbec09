# Pretraining on image labels with mmpretrain; a task adds data, head size and schedule.
_base_ = ['runtime_pretrain.py']

model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(to_rgb=True),
    head=dict(type='LinearClsHead'),
)
train_dataloader = dict(
    persistent_workers=True,
    drop_last=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    persistent_workers=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
# No weight decay on 1-d tensors, class tokens and what encodes positions; registers are decayed.
optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    paramwise_cfg=dict(
        flat_decay_mult=0.0,
        bias_decay_mult=0.0,
        norm_decay_mult=0.0,
        custom_keys={
            '.pos_embed': dict(decay_mult=0.0),
            '.cls_token': dict(decay_mult=0.0),
            '.relative_position_bias_table': dict(decay_mult=0.0),
            '.rope.freqs': dict(decay_mult=0.0),
        },
    ),
    clip_grad=dict(max_norm=5.0),
)
val_cfg = dict()
test_cfg = dict()
