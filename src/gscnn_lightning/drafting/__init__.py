"""From a folder that nobody prepared to a config and a class table: what is in it, and what follows from that."""

from gscnn_lightning.drafting.draft import Draft, draft, write_draft

__all__ = ["Draft", "draft", "write_draft"]
