"""The networks that predict MOS, and their losses."""
