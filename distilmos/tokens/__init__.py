"""Layer-wise tokens: sampled hidden states, k-means of each layer, token ids of each frame."""
