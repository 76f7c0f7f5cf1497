"""Audio and Kaldi-style files: tables, archives, data directories."""
