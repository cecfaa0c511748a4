"""Which image sizes a feature extractor takes."""

import pytest
import torch

from gscnn_lightning.models.input_sizes import InputSizes, crop, find_input_sizes, pad


def halves_and_doubles(n):
    """As of a pyramid whose maps are added after being doubled, with sizes rounded up."""
    for _ in range(5):
        half = (n + 1) // 2
        if half * 2 != n:
            return False
        n = half
    return True


@pytest.mark.parametrize(
    ("takes", "expected"),
    [
        (lambda n: True, (1, 32)),
        (lambda n: n % 4 == 0, (4, 32)),
        (halves_and_doubles, (32, 32)),
        (lambda n: n % 64 == 0, (64, 32)),
        (lambda n: n >= 75, (1, 75)),
        (lambda n: n >= 33, (1, 33)),
        (lambda n: n % 8 == 0 and n >= 96, (8, 96)),
        (lambda n: n % 32 == 0 and n >= 64, (32, 64)),
        (lambda n: n % 224 == 0, (224, 32)),
        (lambda n: n % 28 == 0, (28, 32)),
        (lambda n: n == 224, None),
        (lambda n: n <= 32, None),
        (lambda n: False, None),
    ],
)
def test_rule_is_the_most_general_one(takes, expected):
    assert find_input_sizes(lambda height, width: takes(height) and takes(width), 224) == expected
    if expected:
        fitting = [InputSizes(*expected).fitting(n) for n in range(1, 300)]
        assert all(takes(n) for n in fitting)
        assert all(n >= side for side, n in enumerate(fitting, 1))
        assert {n for n in range(32, 300) if takes(n)} <= set(fitting)


def test_a_rule_is_not_found_where_only_squares_pass():
    assert find_input_sizes(lambda height, width: height == width, 224) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_padding_repeats_the_border_and_cropping_undoes_it(dtype):
    image = torch.rand(2, 3, 33, 47).to(dtype)
    assert pad(image, InputSizes()) is image
    padded = pad(image, InputSizes(32, 32))
    assert padded.shape == (2, 3, 64, 64)
    torch.testing.assert_close(crop(padded, (33, 47), (64, 64)), image)
    assert (padded[..., 33:, :] == padded[..., 32:33, :]).all()
    assert (padded[..., 47:] == padded[..., 46:47]).all()
    assert [tuple(crop(padded[..., ::n, ::n], (33, 47), (64, 64)).shape[-2:]) for n in (2, 4, 8, 16, 32)] == [
        (17, 24),
        (9, 12),
        (5, 6),
        (3, 3),
        (2, 2),
    ]
    assert pad(image[..., :5, :7], InputSizes(16, 96)).shape[-2:] == (96, 96)
