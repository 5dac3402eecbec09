"""What the server of :mod:`tests.support.processes` imports once, for all processes it forks."""

import gc

import matplotlib.pyplot  # noqa: F401  mmengine's visualizer imports it late
import sklearn.datasets  # noqa: F401  the source of the demo's data
from mmengine.utils.dl_utils import collect_env
from mmpretrain.utils import register_all_modules as import_mmpretrain
from mmseg.utils import register_all_modules as import_mmseg

import locat_mm.engine
import locat_mm.evaluation  # noqa: F401

from .formatting import skip_config_formatting

skip_config_formatting()
import_mmpretrain(init_default_scope=False)
import_mmseg(init_default_scope=False)
collect_env()  # keeps what it finds: two seconds
gc.collect()
gc.freeze()  # or each fork would go through all that is imported, to collect garbage
