"""One module per command: argument parsing and nothing else. Options that commands share are in `options`."""
