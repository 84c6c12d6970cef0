"""What a model learns from, and in which order and proportion."""
