_base_ = ['./vit_classify.py']

# Tested with the weights of the plain ViT; nothing is trained.
model = dict(
    backbone=dict(
        _delete_=True,
        type='locat_mm.LocAt',
        start='fixed',
        variance=4.0,
        alpha=6.0,
        backbone=_base_.model.backbone,
    ),
)
