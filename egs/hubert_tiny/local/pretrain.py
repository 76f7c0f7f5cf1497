"""Run fairseq's trainer: the program fairseq-hydra-train, which may not be on PATH."""

from fairseq_cli.hydra_train import cli_main  # type: ignore[import-untyped]

if __name__ == "__main__":
    cli_main()
