"""Reading, checking, loading, finding and writing checkpoints, without executing a pickle.

Loading is strict: the error lists every key that does not fit. Otherwise a backbone could keep its
random weights without a message, and its results would look like those of a bad method.
"""

from .finding import find_resumable, whole_checkpoints
from .fitting import Fit, check_fit
from .loading import init_from_pretrained, load_official, pretrained_of, watch_pretrained
from .names import strip_prefix, to_official, to_openmmlab
from .reading import allow_plain_data, read_content, unwrap
from .resuming import check_average, check_resumable, check_training_state
from .sources import ReadAhead, read_state_dict, trust_checkpoints
from .writing import AtomicBackend, check_target, write_beside, write_state_dict

__all__ = [
    'AtomicBackend',
    'Fit',
    'ReadAhead',
    'allow_plain_data',
    'check_average',
    'check_fit',
    'check_resumable',
    'check_target',
    'check_training_state',
    'find_resumable',
    'init_from_pretrained',
    'load_official',
    'pretrained_of',
    'read_content',
    'read_state_dict',
    'strip_prefix',
    'to_official',
    'to_openmmlab',
    'trust_checkpoints',
    'unwrap',
    'watch_pretrained',
    'whole_checkpoints',
    'write_beside',
    'write_state_dict',
]
