"""Multi-task fine-tuning: settings, batches, the training loop, and exact continuation after an interruption."""
