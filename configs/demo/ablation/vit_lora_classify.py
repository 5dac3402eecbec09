_base_ = ['../vit_classify.py']

# Tested with the plain ViT's classifier and the LoRA of vit_lora_tune.py, merged.
model = dict(
    backbone=dict(out_type='raw'),
    neck=dict(
        _delete_=True, type='locat_mm.PatchRepresentationRefinement', num_heads=2, pool='cls_token'
    ),
)
