"""locat_mm: LocAt for OpenMMLab."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION: dict = {}
exec((ROOT / 'locat_mm' / 'version.py').read_text(), VERSION)

setup(
    name='locat_mm',
    version=VERSION['__version__'],
    description='LocAt (Locality-Attending Vision Transformer) for OpenMMLab',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    packages=find_packages(include=['locat_mm', 'locat_mm.*']),
    python_requires='>=3.10',
    install_requires=[
        'torch>=2.6',
        'torchvision',
        'timm>=1.0.31',
        'safetensors',
        'huggingface_hub',
        'numpy',
    ],
    # Two distributions of OpenMMLab share their import names; choose one.
    extras_require={
        'onedl': [
            'onedl-mmengine>=0.10.12',
            'onedl-mmcv>=2.3.6',
            'onedl-mmsegmentation>=1.4.2',
            'onedl-mmpretrain>=1.3.6',
        ],
        'openmmlab': [
            'mmengine>=0.10.7',
            'mmcv>=2.1.0,<2.2.0',
            'mmsegmentation>=1.2.2',
            'mmpretrain>=1.2.0',
            'ftfy',
            'regex',
        ],
        'demo': ['scikit-learn', 'matplotlib', 'tqdm'],
    },
)
