"""Text -> articles -> passages: the knowledge corpus Z (and the pre-training corpus X)."""
