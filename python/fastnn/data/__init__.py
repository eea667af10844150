"""Real images in, batches out: datasets (MNIST, FashionMNIST, CIFAR10, the embedded digits, arrays of your own), the
DataLoader that shuffles and batches them, and augmentation. NumPy only; nothing here knows of layers or tensors.
"""

from .dataset import ArrayDataset, Subset, random_split
from .digits import digits

__all__ = ["ArrayDataset", "Subset", "digits", "random_split"]
