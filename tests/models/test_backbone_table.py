"""docs/backbones.md says what the tests find."""

import pytest
from tests.models.backbone_table import INTRODUCTION, NAMES, PAGE, row, rows


def test_the_table_has_all_families_that_are_tried():
    assert PAGE.read_text(encoding="utf-8").startswith(INTRODUCTION)
    assert list(rows()) == ["model", *NAMES]


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "cait_xxs24_224"])
def test_rows_are_as_committed(name):
    assert rows()[name] == row(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_row_is_as_committed(name):
    assert rows()[name] == row(name)
