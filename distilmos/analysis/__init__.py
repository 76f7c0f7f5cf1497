"""How much each encoder layer knows, and what fine-tuning changes: layer similarity, tokens, probes."""
