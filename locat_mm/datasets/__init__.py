"""Checks of data sets, with messages that name the file; rasters and volumes; own folders."""

from .channel_checks import check_channels
from .channel_statistics import ChannelStatistics, measure_channels
from .file_annotations import FileAnnotations
from .file_damage import BadSampleError, check_end, find_damage
from .folders import ClassFolder, MaskFolder, read_class_folder, read_mask_folder
from .geotiff import GeoReference, LoadGeoTIFF, LoadGeoTIFFAnnotations
from .guarded_pipeline import GuardedPipeline, SkipLog, has_backend
from .intensities import CTWindow, RandomIntensity
from .nifti import LoadNIfTI, LoadNIfTIAnnotations, NIfTISlices
from .report import Report, Samples, ValueUse
from .source_checks import check_sources, missing_files
from .transforms import CheckAnnotations
from .wrappers import leaves
from .zero_label import check_zero_label, choose_zero_label

__all__ = [
    'BadSampleError',
    'CTWindow',
    'ChannelStatistics',
    'CheckAnnotations',
    'ClassFolder',
    'FileAnnotations',
    'GeoReference',
    'GuardedPipeline',
    'LoadGeoTIFF',
    'LoadGeoTIFFAnnotations',
    'LoadNIfTI',
    'LoadNIfTIAnnotations',
    'MaskFolder',
    'NIfTISlices',
    'RandomIntensity',
    'Report',
    'Samples',
    'SkipLog',
    'ValueUse',
    'check_channels',
    'check_end',
    'check_sources',
    'check_zero_label',
    'choose_zero_label',
    'find_damage',
    'has_backend',
    'leaves',
    'measure_channels',
    'missing_files',
    'read_class_folder',
    'read_mask_folder',
]
