"""Analyse the layers of an encoder before and after fine-tuning: similarity, token ids, probes."""
