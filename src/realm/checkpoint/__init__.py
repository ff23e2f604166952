"""Parameters on disk: checkpoints with all that a resume needs, and pre-trained encoders."""
