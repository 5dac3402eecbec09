# dino.py for digit_scenes' objects, small enough for two CPU cores.
_base_ = ['dino.py']

model = dict(
    data_preprocessor=dict(mean=[127.5, 127.5, 127.5], std=[64.0, 64.0, 64.0]),
    backbone=dict(
        arch=dict(embed_dim=64, depth=4, num_heads=2),
        img_size=48,
        patch_size=8,
    ),
    neck=dict(num_heads=2),
    head=dict(in_channels=64, out_channels=256, hidden_channels=256, bottleneck_channels=64),
    loss=dict(teacher_temp=0.02, warmup_teacher_temp=0.02),
    base_momentum=0.01,
    # A standard deviation of 0.02 fits widths of hundreds. At width 64 the outputs then hardly
    # depend on the image, and DINO does not leave this state within minutes.
    init_cfg=dict(type='Xavier', layer='Linear', distribution='normal'),
)
