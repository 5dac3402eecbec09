# ImageNet-1K pretraining, 300 epochs of 1,024-image batches: the authors' recipe.
optim_wrapper = dict(
    type='AmpOptimWrapper',  # float16, dynamic loss scale
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    # No weight decay on 1-d tensors, class tokens and position encodings. Registers are decayed.
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
# lr 5e-4 per 512 images; 1e-3 at the global batch of 1024.
auto_scale_lr = dict(base_batch_size=1024, enable=False)
# Linear up over 20 epochs, then linear down to 1e-7. The learning rate changes every iteration.
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-4, by_epoch=True, end=20, convert_to_iter_based=True),
    dict(
        type='LinearLR',
        start_factor=1.0,
        end_factor=1e-4,
        by_epoch=True,
        begin=20,
        end=300,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(by_epoch=True, max_epochs=300, val_interval=10)
val_cfg = dict()
test_cfg = dict()
