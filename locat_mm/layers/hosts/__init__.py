"""Attention layers with GAug, a file for each host library; :mod:`.search` finds them in a model.

The modules of mmpretrain and mmseg are imported only when a model has such a layer.
"""
