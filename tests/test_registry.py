"""Names resolve in every scope, with and without an import."""

import subprocess
import sys

import pytest

CODE = """
import warnings; warnings.simplefilter('ignore')
from mmengine.config import Config
from mmengine.registry import init_default_scope
from {package}.registry import MODELS
init_default_scope('{package}')
imported = {imported}
prefix = '' if imported else 'locat_mm.'
if imported:
    Config.fromfile('{config}')
else:
    try:
        MODELS.build(dict(type='LocAtViT'))
    except KeyError as error:
        print(error)
for cfg in (
    dict(type='LocAtViT', arch=dict(embed_dim=12, depth=1, num_heads=2), img_size=32),
    dict(type='PatchRepresentationRefinement', num_heads=2),
    dict(type='GaussianAugmentedAttention', dim=12, num_heads=2),
    dict(type='LinearSegHead', in_channels=12, channels=8, num_classes=3),
):
    print(type(MODELS.build({{**cfg, 'type': prefix + cfg['type']}})).__module__)
"""


@pytest.mark.parametrize('package', ['mmseg', 'mmpretrain'])
@pytest.mark.parametrize('imported', [False, True], ids=['scoped', 'custom_imports'])
def test_names_resolve(package, imported, tmp_path):
    config = tmp_path / 'config.py'
    config.write_text("custom_imports = dict(imports=['locat_mm'])")
    # A fresh interpreter: what this process has imported must not help.
    code = CODE.format(package=package, imported=imported, config=config)
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    modules = [line for line in done.stdout.splitlines() if line.startswith('locat_mm.')]
    assert len(modules) == 4, done.stdout
    if not imported:
        assert f'LocAtViT is not in the {package}::model registry' in done.stdout
