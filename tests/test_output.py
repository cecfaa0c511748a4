import numpy as np
import torch

from gscnn_lightning.output import GSCNNOutput, predictions


def output(batch=2, shape_stream=True):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(batch, 4, 6, 8, generator=generator)
    gates = tuple(torch.rand(batch, 1, 3, 4, generator=generator) for _ in range(3))
    return GSCNNOutput(logits, logits[:, :1] if shape_stream else None, gates if shape_stream else ())


def batch(size=2):
    return {"name": [f"city/{i}" for i in range(size)], "image": torch.randint(0, 256, (size, 3, 6, 8)).byte()}


def test_labels_are_the_most_likely_classes_and_boundaries_probabilities():
    out = output()
    assert out.labels.tolist() == np.argmax(out.seg_logits.numpy(), 1).tolist()
    torch.testing.assert_close(out.boundary_prob, 1 / (1 + torch.exp(-out.boundary_logits)))
    half = GSCNNOutput(out.seg_logits.bfloat16(), out.boundary_logits.bfloat16(), ())
    assert half.boundary_prob.dtype == torch.float32
    assert output(shape_stream=False).boundary_prob is None


def test_every_image_of_a_batch_is_a_record_of_its_own():
    out, images = output(), batch()
    first, second = predictions(out, images)
    assert (first.name, second.name) == ("city/0", "city/1")
    for index, found in enumerate((first, second)):
        assert found.photo.tolist() == images["image"][index].permute(1, 2, 0).tolist()
        assert found.preds.dtype == np.uint8
        assert found.preds.tolist() == out.labels[index].tolist()
        np.testing.assert_array_equal(found.boundary_prob, out.boundary_prob[index, 0])
        for gate, expected in zip(found.gates, out.gates, strict=True):
            np.testing.assert_array_equal(gate, expected[index, 0])
        assert found.labels is None
        assert found.boundary is None


def test_what_a_network_does_not_say_is_left_out():
    (found,) = predictions(output(1, shape_stream=False), batch(1))
    assert found.boundary_prob is None
    assert found.gates == ()
    (found,) = predictions(output(1), batch(1), with_gates=False)
    assert found.boundary_prob is not None
    assert found.gates == ()


def test_trust_is_that_of_the_probabilities_and_made_only_when_asked_for():
    logits = torch.randn(2, 4, 150, 8, generator=torch.Generator().manual_seed(0)) * 3  # more rows than one strip
    logits[0, :, 0, 0] = torch.tensor([0.0, -1e4, -1e4, -1e4])
    logits[0, :, 0, 1] = 7.0
    out = GSCNNOutput(logits, None, ())
    images = {"name": ["a", "b"], "image": torch.zeros(2, 3, 150, 8).byte()}
    assert all(found.confidence is None and found.entropy is None for found in predictions(out, images))
    found = predictions(out, images, trust=["confidence", "entropy"])
    prob = np.exp(logits.double().numpy())
    prob /= prob.sum(1, keepdims=True)
    entropy = -(prob * np.log(np.maximum(prob, 1e-300))).sum(1) / np.log(4)
    for index in range(2):
        assert found[index].confidence.dtype == found[index].entropy.dtype == np.float32
        np.testing.assert_allclose(found[index].confidence, prob[index].max(0), atol=1e-6)
        np.testing.assert_allclose(found[index].entropy, entropy[index], atol=1e-6)
    assert found[0].confidence[0, :2].tolist() == [1.0, 0.25]
    np.testing.assert_allclose(found[0].entropy[0, :2], [0, 1], atol=1e-6)
    one = {"name": ["a"], "image": images["image"][:1]}
    (only,) = predictions(GSCNNOutput(logits[:1].bfloat16(), None, ()), one, trust=["entropy"])
    assert only.confidence is None
    assert only.entropy.dtype == np.float32
    assert float(GSCNNOutput(logits[:, :1], None, ()).trust("entropy").max()) == 0
