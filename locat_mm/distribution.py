"""Check which distribution of OpenMMLab is installed.

Two families provide the same import names: the maintained ``onedl-*`` packages and upstream.
Installed together they overwrite each other's files.
"""

from importlib.metadata import PackageNotFoundError, version

__all__ = ['check_openmmlab']

#: import name -> (maintained fork, upstream packages)
_PACKAGES: dict[str, tuple[str, tuple[str, ...]]] = {
    'mmengine': ('onedl-mmengine', ('mmengine', 'mmengine-lite')),
    'mmcv': ('onedl-mmcv', ('mmcv', 'mmcv-lite')),
    'mmseg': ('onedl-mmsegmentation', ('mmsegmentation',)),
    'mmpretrain': ('onedl-mmpretrain', ('mmpretrain',)),
}


def check_openmmlab() -> None:
    """Check that every OpenMMLab package is installed, and only once.

    Raises:
        ImportError: if a package is missing, or both distributions of it are installed.
    """
    for name, (fork, upstream) in _PACKAGES.items():
        found = [package for package in (fork, *upstream) if _is_installed(package)]
        if not found:
            raise ImportError(
                f'locat_mm needs {name}. Install the maintained packages with pip install '
                f"'locat_mm[onedl]', or upstream's with pip install 'locat_mm[openmmlab]'."
            )
        if fork in found and len(found) > 1:
            raise ImportError(
                f'{" and ".join(found)} are both installed and overwrite each other, since both '
                f'provide {name}. Uninstall both, then install one.'
            )


def _is_installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True
