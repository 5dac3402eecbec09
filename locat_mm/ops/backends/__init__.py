"""Ways to compute Gaussian attention, one a file; :mod:`.naive` is the reference.

A backend is a function of :func:`locat_mm.ops.gaussian_attention`'s tensors and their geometry, a
``why_not`` that gives the reason when it cannot run an input, and an entry in
``locat_mm.ops.gaussian_attention.BACKENDS``.
"""
