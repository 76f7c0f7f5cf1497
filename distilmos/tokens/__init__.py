"""Layer-wise tokens: sampled hidden states, k-means per layer, token ids per frame."""
