_base_ = ['../vit_classify.py']

# Tested with the plain ViT's classifier and the GAug of vit_gaug_dense_tune.py.
model = dict(
    backbone=dict(
        _delete_=True, type='locat_mm.LocAt', start='identity', backbone=_base_.model.backbone
    ),
)
