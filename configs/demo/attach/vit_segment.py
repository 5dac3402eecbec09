_base_ = ['../vit_segment.py']
