"""The page: one recording with its frame scores, or several as a table."""

from __future__ import annotations

import csv
import os
import tempfile
from pathlib import Path
from typing import Any

from distilmos.api import Predictor
from distilmos.data.recordings import SUFFIXES, Recording
from distilmos.inference.frames import frame_figure, spectrogram
from distilmos.inference.predict import Score

COLUMNS = ("file", "MOS", "seconds", "problem")
# Fonts of the reader's system: the page must not fetch anything from elsewhere.
FONTS = ("system-ui", "sans-serif")
MONO_FONTS = ("ui-monospace", "monospace")


def make_page(predictor: Predictor, title: str) -> Any:
    """Return the page as gradio's Blocks.

    Args:
        predictor: scores what is dropped.
        title: names the model.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    import gradio

    def score_one(path: str | None) -> tuple[str, Any]:
        if path is None:
            return "", None
        (score,) = predictor.score([Recording(path, Path(path))])
        if score.error:
            raise gradio.Error(_without_directory(score, path))
        return f"{score.mos:.2f}", frame_figure(_named(score, path), spectrogram(Recording(path, Path(path))))

    def score_several(paths: list[str] | None) -> tuple[list[list[Any]], str | None]:
        scores = predictor.score(Recording(path, Path(path)) for path in paths or [])
        rows = [_row(score, path) for score, path in zip(scores, paths or [], strict=True)]
        return rows, _write_csv(rows) if rows else None

    with gradio.Blocks(title=title, analytics_enabled=False) as page:
        gradio.Markdown(f"# {title}\nPredicted mean opinion score (MOS, from 1, bad, to 5, excellent) of speech.")
        with gradio.Tab("One recording"):
            audio = gradio.Audio(
                sources=["upload", "microphone"], type="filepath", label="Recording", buttons=["download"]
            )
            mos = gradio.Textbox(label="MOS", interactive=False, elem_id="mos")
            figure = gradio.Plot(label="Frame scores and spectrogram", show_label=False)
            audio.change(score_one, audio, [mos, figure], api_name="score")
        with gradio.Tab("Several"):
            files = gradio.File(file_count="multiple", file_types=list(SUFFIXES), label="Recordings", elem_id="files")
            button = gradio.Button("Score", variant="primary")
            table = gradio.Dataframe(
                headers=list(COLUMNS),
                datatype=["str", "number", "number", "str"],
                interactive=False,
                wrap=True,
                label="Click a heading to sort",
            )
            download = gradio.File(label="CSV", interactive=False)
            button.click(score_several, files, [table, download], api_name="score_several")
    return page


def serve(predictor: Predictor, title: str, port: int, *, open_browser: bool) -> None:
    """Serve the page on loopback until the user interrupts it.

    Args:
        predictor: scores what is dropped.
        title: names the model.
        port: to listen on.
        open_browser: whether to open the page there.
    """
    page = make_page(predictor, title)
    import gradio

    theme = gradio.themes.Default(font=FONTS, font_mono=MONO_FONTS)
    page.launch(
        server_name="127.0.0.1", server_port=port, share=False, inbrowser=open_browser, theme=theme, footer_links=[]
    )


def _without_directory(score: Score, path: str) -> str:
    """Return the error without the temporary directory that an upload is in."""
    return score.error.replace(path, Path(path).name)


def _named(score: Score, path: str) -> Score:
    return Score(Path(path).name, score.seconds, score.mos, score.frame_mos, score.frame_seconds)


def _row(score: Score, path: str) -> list[Any]:
    if score.error:
        return [Path(path).name, None, None, _without_directory(score, path)]
    return [Path(path).name, round(score.mos, 4), round(score.seconds, 2), ""]


def _write_csv(rows: list[list[Any]]) -> str:
    path = Path(tempfile.mkdtemp(prefix="distilmos_")) / "scores.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows)
    return str(path)
