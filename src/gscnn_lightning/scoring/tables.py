"""Scores in words: a table of the classes, and what was measured beside it."""

import math

from rich import box
from rich.table import Table
from rich.text import Text

from gscnn_lightning.score_names import IOU, MEAN_NAMES, is_boundary_score, mean_name, score_headings
from gscnn_lightning.scores import Scores

_NAMED = 8


def score_table(scores: Scores, title: str) -> Table:
    """Classes down, scores across, means in the footer; in percent. What has a dash is explained below."""
    table = Table(
        title=Text(title, style="bold"), title_justify="left", box=box.HORIZONTALS, show_footer=True, pad_edge=False
    )
    table.add_column("class", "mean", footer_style="bold", overflow="ellipsis", no_wrap=True, max_width=28)
    for key, heading in zip(scores.classes, score_headings(list(scores.classes)), strict=True):
        footer = percent(scores.means.get(mean_name(key), math.nan))
        table.add_column(heading, footer, justify="right", footer_style="bold", min_width=6)
    for name, values in scores.rows():
        table.add_row(Text(name), *map(percent, values.values()))
    caption = "\n".join(absences(scores))
    table.caption = Text(caption, style="dim") if caption else None
    table.caption_justify = "left"
    return table


def absences(scores: Scores) -> list[str]:
    """Why classes have no scores, one line per reason: they are not there, or they have no boundary.

    Args:
        scores: of a split; a class without any has NaN.
    """
    rows = scores.rows() if scores.class_names and IOU in scores.classes else []
    absent = [name for name, values in rows if math.isnan(values[IOU])]
    # A class may fill its frames, or touch nothing but void.
    alone = [
        name
        for name, values in rows
        if name not in absent and any(math.isnan(v) for key, v in values.items() if is_boundary_score(key))
    ]
    reasons = {
        "neither in the labels nor predicted, so in no mean": absent,
        "without a boundary in labels and predictions, so in no mean of boundary scores": alone,
    }
    return [f"-: {_listed(names)} {reason}" for reason, names in reasons.items() if names]


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more} {'is' if len(names) == 1 else 'are'}"


def other_scores(scores: Scores) -> list[tuple[str, str]]:
    """What was measured beside the table, as pairs of label and value."""
    in_table = {mean_name(name) for name in scores.classes}
    others = [name for name in MEAN_NAMES if name in scores.means and name not in in_table]
    facts = [(MEAN_NAMES[name], percent(scores.means[name])) for name in others]
    if scores.crops:
        facts.append((f"mIoU at crop {'/'.join(scores.crops)}", "/".join(map(percent, scores.crops.values()))))
    return facts


def facts_text(facts: list[tuple[str, str]]) -> str:
    """Labels and values, one below the other."""
    width = max(16, 1 + max((len(label) for label, _ in facts), default=0))
    return "\n".join(f"{label:<{width}}{fact}" for label, fact in facts)


def percent(value: float) -> str:
    """A share in percent, a dash for NaN.

    Example:
        >>> percent(0.5), percent(math.nan)
        ('50.0', '-')
    """
    return "-" if math.isnan(value) else f"{100 * value:.1f}"
