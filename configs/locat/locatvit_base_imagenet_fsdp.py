_base_ = ['./locatvit_base_imagenet.py', '../_base_/fsdp.py']
