"""SSL speech encoders: one network type, and loaders that convert every supported checkpoint to it."""
