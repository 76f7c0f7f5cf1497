"""A local page on which recordings are dropped or recorded, and scored."""
