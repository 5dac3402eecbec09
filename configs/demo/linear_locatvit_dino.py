_base_ = ['./linear_vit_dino.py']

model = dict(
    backbone=dict(
        type='locat_mm.LocAtViT',
        gaug=True,
        out_type='raw',
        init_cfg=dict(checkpoint='work_dirs/locatvit_dino/epoch_8.pth'),
    ),
    # The class token after PRR, as in the authors' code.
    neck=dict(type='locat_mm.PatchRepresentationRefinement', num_heads=2, pool='cls_token'),
)
