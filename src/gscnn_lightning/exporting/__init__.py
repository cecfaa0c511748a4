"""Networks as files that other programs run: made, compared with their checkpoint, and read again."""
