_base_ = [
    '../_base_/models/in_context_segmentor.py',
    '../_base_/datasets/in_context_ade20k.py',
    '../_base_/runtime_segment.py',
]

model = dict(
    # Stage 2 has patches of 16 pixels, as ViT's.
    backbone=dict(
        type='locat_mm.LocAtSwin',
        arch='tiny',
        patch_size=4,
        window_size=7,
        out_indices=2,
        init_cfg=dict(checkpoint='work_dirs/locatswin_tiny_imagenet/epoch_300.pth'),
    ),
)
