"""The kernels as functions of plain arrays: NumPy arrays in, NumPy arrays out, no gradients.

Every function checks its arguments before touching memory, allocates its output (or writes ``out=``) and runs on the
device that holds its input. ``*_backward*`` functions are the gradients that ``fastnn.functional`` is made of.
"""

from .activation import *  # noqa: F403
from .conv import *  # noqa: F403
from .cross_entropy import *  # noqa: F403
from .gemm import *  # noqa: F403
from .loss import *  # noqa: F403
from .norm import *  # noqa: F403
from .optim import *  # noqa: F403
from .pad import *  # noqa: F403
from .pool import *  # noqa: F403
from .random import *  # noqa: F403
from .reduce import *  # noqa: F403
from .softmax import *  # noqa: F403
