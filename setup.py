"""locat_mm: LocAt for OpenMMLab."""

import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
VERSION: dict = {}
exec((ROOT / 'locat_mm' / 'version.py').read_text(), VERSION)


class BuildWithMim(build_py):
    """Put configs, tools and the model index into ``locat_mm/.mim``, where mim and mmengine look.

    A wheel gets copies, made in the build folder; an editable install gets links in the clone.
    """

    def run(self) -> None:
        super().run()
        mim = (ROOT if self.editable_mode else Path(self.build_lib)) / 'locat_mm' / '.mim'
        skipped = shutil.ignore_patterns('__pycache__')
        # What an earlier build left there may be gone from the tree.
        shutil.rmtree(mim, ignore_errors=True)
        mim.mkdir(parents=True)
        for name in ('configs', 'tools', 'model-index.yml'):
            if self.editable_mode:
                (mim / name).symlink_to(Path('..', '..', name))
            elif (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, mim / name, ignore=skipped)
            else:
                shutil.copy(ROOT / name, mim / name)


setup(
    name='locat_mm',
    version=VERSION['__version__'],
    description='LocAt (Locality-Attending Vision Transformer) for OpenMMLab',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    author='The locat_mm developers',
    keywords=[
        *('vision transformer', 'semantic segmentation', 'image classification', 'attention'),
        *('OpenMMLab', 'mmsegmentation', 'mmpretrain', 'timm', 'LocAt'),
    ],
    project_urls={
        'Paper': 'https://arxiv.org/abs/2603.04892',
        "Authors' code": 'https://github.com/sinahmr/LocAtViT',
    },
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Science/Research',
        'License :: OSI Approved :: Apache Software License',
        'Programming Language :: Python :: 3',
        *(f'Programming Language :: Python :: 3.{minor}' for minor in range(10, 14)),
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
        'Typing :: Typed',
    ],
    packages=find_packages(include=['locat_mm', 'locat_mm.*']),
    package_data={
        'locat_mm': ['py.typed'],
        'locat_mm.analysis.page': ['*.html', '*.css', '*.js'],
    },
    cmdclass={'build_py': BuildWithMim},
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
            'numpy<2',  # mmcv 2.1 shifts hues by numbers that numpy 2 refuses
            'ftfy',
            'regex',
        ],
        'deploy': ['onnx>=1.17', 'onnxscript>=0.5', 'onnxruntime>=1.20'],
        'app': ['gradio>=6'],
        'satellite': ['rasterio>=1.3'],
        'medical': ['nibabel>=5'],
        'demo': ['scikit-learn', 'matplotlib', 'tqdm'],
    },
)
