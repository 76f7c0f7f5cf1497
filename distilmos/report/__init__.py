"""Write the pages on experiments, layer analyses and data directories, with their figures."""
