"""Networks by name: ``models.lenet5()``, ``models.create("alexnet-small")``, ``models.names()``.

Each function returns a Module with the attributes ``name`` and ``input_shape`` (of one sample, without the batch).
Layers are named as torchvision names them (``features.N``, ``classifier.N``), so that PyTorch's weights of the same
architecture load unchanged.
"""

from .convnet import ConvNet, alexnet_small, lenet5
from .mlp import MLP, mlp, perceptron
from .registry import create, names

__all__ = ["ConvNet", "MLP", "alexnet_small", "create", "lenet5", "mlp", "names", "perceptron"]
