"""Every op, each with its gradient on the same screen, in PyTorch's names, argument order and defaults.

Tensors in, Tensors out (recorded for ``backward``); plain arrays in, plain arrays out.
"""

from .activation import *  # noqa: F403
from .arithmetic import *  # noqa: F403
from .conv import *  # noqa: F403
from .cross_entropy import *  # noqa: F403
from .device import *  # noqa: F403
from .dropout import *  # noqa: F403
from .linear import *  # noqa: F403
from .loss import *  # noqa: F403
from .norm import *  # noqa: F403
from .pad import *  # noqa: F403
from .pool import *  # noqa: F403
from .reduction import *  # noqa: F403
from .shaping import *  # noqa: F403
from .softmax import *  # noqa: F403
