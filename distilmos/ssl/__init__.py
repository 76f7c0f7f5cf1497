"""Self-supervised speech encoders: one network type, and loaders that end in it."""
