"""``gscnn cost``."""

from collections.abc import Sequence

from gscnn_lightning.parsing import arguments_of


@arguments_of("models/gscnn.py", "GSCNN", first="backbone", without=("pretrained", "backbone_weights"))
def cost(size: tuple[int, int] = (1024, 2048), others: Sequence[str] = ()) -> None:
    """Print parameters and GFLOPs of every part: trunk, shape stream, ASPP, decoder, and what else the network has.

    Examples:
      gscnn cost --backbone wider_resnet38_a2 --size [800,800]
      gscnn cost resnet18 --num_classes 11 --shape_stream false

    Args:
        size: height and width of the image in pixels.
        others: those of the network.

    Raises:
        GSCNNError: the backbone is unknown, or a setting is out of range.
    """
    from gscnn_lightning.models.cost import cost_table, meta_network, network_cost
    from gscnn_lightning.parsing import CommandParser
    from gscnn_lightning.terminal import say

    network = CommandParser("gscnn cost", meta_network).run(others)
    strides = "/".join(map(str, network.backbone.strides))
    say(f"{network.backbone.name}, strides {strides}, one image of {size[0]}x{size[1]} pixels")
    say(cost_table(network_cost(network, size)))
