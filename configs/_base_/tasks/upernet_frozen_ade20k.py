# UPerNet on ADE20K on a frozen backbone, 8 GPUs × 2 images.
_base_ = ['upernet_ade20k.py']

features = dict(_delete_=True, out_type='featmap', final_norm=False, frozen=True)
