"""Real images in, batches out: datasets (MNIST, FashionMNIST, CIFAR10, the embedded digits, arrays of your own), the
DataLoader that shuffles and batches them, and augmentation. NumPy only; nothing here knows of layers or tensors.
"""

from .augment import Augmentation, Draw, RandomCrop, RandomHorizontalFlip
from .cifar import CIFAR10
from .dataset import ArrayDataset, Subset, random_split
from .digits import digits
from .loader import DataLoader
from .mnist import MNIST, FashionMNIST

__all__ = [
    "CIFAR10",
    "MNIST",
    "ArrayDataset",
    "Augmentation",
    "DataLoader",
    "Draw",
    "FashionMNIST",
    "RandomCrop",
    "RandomHorizontalFlip",
    "Subset",
    "digits",
    "random_split",
]
