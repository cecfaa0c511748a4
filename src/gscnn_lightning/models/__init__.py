"""Networks: plain ``nn.Module`` classes, usable without Lightning."""

from gscnn_lightning.models.aspp import BoundaryASPP
from gscnn_lightning.models.backbone import Backbone
from gscnn_lightning.models.gscnn import GSCNN, GSCNNOutput
from gscnn_lightning.models.image_gradient import ImageGradient, canny, sobel
from gscnn_lightning.models.shape_stream import GatedConv2d, ShapeStream

__all__ = [
    "GSCNN",
    "Backbone",
    "BoundaryASPP",
    "GSCNNOutput",
    "GatedConv2d",
    "ImageGradient",
    "ShapeStream",
    "canny",
    "sobel",
]
