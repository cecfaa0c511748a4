import torch
from timm.layers import BatchNormAct2d

from gscnn_lightning.models import GSCNN
from gscnn_lightning.sync_batchnorm import TimmSyncBatchNorm


def test_conversion_keeps_the_network():
    torch.manual_seed(0)
    net = GSCNN(3, "tf_efficientnet_lite0", pretrained=False, channels=8, shape_channels=8).eval()
    assert any(isinstance(m, BatchNormAct2d) for m in net.modules())
    image = torch.rand(1, 3, 64, 64)
    before = net(image).seg_logits
    plugin = TimmSyncBatchNorm()
    synced = plugin.revert(plugin.apply(net)).eval()
    norms = [m for m in synced.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    assert norms
    assert all(isinstance(m, torch.nn.SyncBatchNorm) for m in norms)
    torch.testing.assert_close(synced(image).seg_logits, before)
