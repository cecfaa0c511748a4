"""Networks: plain ``nn.Module`` classes, usable without Lightning.

Importing this package makes timm know ``wider_resnet38_a2``.
"""

from gscnn_lightning.models.aspp import BoundaryASPP
from gscnn_lightning.models.backbone import Backbone
from gscnn_lightning.models.gscnn import GSCNN
from gscnn_lightning.models.image_gradient import ImageGradient, canny, sobel
from gscnn_lightning.models.shape_stream import GatedConv2d, ShapeStream
from gscnn_lightning.models.wider_resnet import WiderResNet
from gscnn_lightning.output import GSCNNOutput

__all__ = [
    "GSCNN",
    "Backbone",
    "BoundaryASPP",
    "GSCNNOutput",
    "GatedConv2d",
    "ImageGradient",
    "ShapeStream",
    "WiderResNet",
    "canny",
    "sobel",
]
