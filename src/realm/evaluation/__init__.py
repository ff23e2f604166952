"""Questions -> answers -> numbers."""
