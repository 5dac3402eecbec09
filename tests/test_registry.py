"""Names resolve in every scope, with and without an import."""

import subprocess
import sys

import pytest

#: In a new interpreter, because what this process has imported must not help.
CODE = """
import importlib
import sys
import warnings

warnings.simplefilter('ignore')
from mmengine.config import Config
from mmengine.registry import init_default_scope

config = sys.argv[1]
prefix = '' if config else 'locat_mm.'
BUILT = (
    dict(type='LocAtViT', arch=dict(embed_dim=12, depth=1, num_heads=2), img_size=32),
    dict(type='PatchRepresentationRefinement', num_heads=2),
    dict(type='GaussianAugmentedAttention', dim=12, num_heads=2),
    dict(type='LinearSegHead', in_channels=12, channels=8, num_classes=3),
)
FOUND = dict(InContextSegmentor='MODELS', InContextTestLoop='LOOPS', KNNAccuracy='METRICS')
FOUND.update(KNNTestLoop='LOOPS', KNNValLoop='LOOPS')
packages = {name: importlib.import_module(f'{name}.registry') for name in ('mmseg', 'mmpretrain')}
if config:
    Config.fromfile(config)
for package, registries in packages.items():
    init_default_scope(package)
    if not config:
        try:
            registries.MODELS.build(dict(type='LocAtViT'))
        except KeyError as error:
            print(error)
for package, registries in packages.items():
    init_default_scope(package)
    for cfg in BUILT:
        print(type(registries.MODELS.build({**cfg, 'type': prefix + cfg['type']})).__module__)
    for name, kind in FOUND.items():
        print(getattr(registries, kind).get(prefix + name).__module__)
"""


@pytest.mark.parametrize('imported', [False, True], ids=['scoped', 'custom_imports'])
def test_names_resolve(imported, tmp_path):
    config = tmp_path / 'config.py'
    config.write_text("custom_imports = dict(imports=['locat_mm'])")
    argument = str(config) if imported else ''
    done = subprocess.run([sys.executable, '-c', CODE, argument], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    modules = [line for line in done.stdout.splitlines() if line.startswith('locat_mm.')]
    assert len(modules) == 2 * (4 + 5), done.stdout
    if not imported:
        for package in ('mmseg', 'mmpretrain'):
            assert f'LocAtViT is not in the {package}::model registry' in done.stdout
