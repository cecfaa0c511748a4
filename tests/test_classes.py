import numpy as np

from gscnn_lightning.classes import CAMVID, CITYSCAPES, colors_of


def test_colors_of_known_and_other_classes():
    assert colors_of(CITYSCAPES.names) == CITYSCAPES.colors
    assert colors_of(list(CAMVID.names)) == CAMVID.colors
    colors = np.array(colors_of([str(i) for i in range(30)]), float)
    distances = np.linalg.norm(colors[:, None] - colors[None], axis=-1) + 1e9 * np.eye(30)
    assert distances.min() > 10
    assert np.linalg.norm(np.diff(colors, axis=0), axis=1).min() > 60
