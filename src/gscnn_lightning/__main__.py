"""``python -m gscnn_lightning`` is ``gscnn-fit``."""

from gscnn_lightning.cli import main

if __name__ == "__main__":
    main()
