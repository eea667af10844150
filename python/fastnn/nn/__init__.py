"""Layers, containers and losses, with torch.nn's names, arguments, defaults and state_dict keys.

``module.py`` is the base class; the other files hold the layers by kind; ``init`` fills parameters,
``utils`` clips gradients.
"""

from .. import functional
from . import init, utils
from .activation import *  # noqa: F403
from .container import *  # noqa: F403
from .conv import *  # noqa: F403
from .dropout import *  # noqa: F403
from .linear import *  # noqa: F403
from .loss import *  # noqa: F403
from .module import *  # noqa: F403
from .normalization import *  # noqa: F403
from .parameter import *  # noqa: F403
from .pooling import *  # noqa: F403

__all__ = ["functional", "init", "utils"]
