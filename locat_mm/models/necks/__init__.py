from .patch_representation_refinement import PatchRepresentationRefinement

__all__ = ['PatchRepresentationRefinement']
