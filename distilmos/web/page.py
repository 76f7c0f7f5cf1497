"""A web page that scores one recording with its frames, or several recordings as a table."""

from __future__ import annotations

import csv
import os
import tempfile
from pathlib import Path
from typing import Any

from distilmos.api import Predictor
from distilmos.data.recordings import Recording, audio_suffixes
from distilmos.data.schema import MOS_SCALE
from distilmos.inference.frames import plot_frames
from distilmos.inference.predict import Score, scales_of

# System fonts: the page must not fetch anything from the internet.
FONTS = ("system-ui", "sans-serif")
MONO_FONTS = ("ui-monospace", "monospace")


def make_page(predictor: Predictor, title: str) -> Any:
    """Build the page (gradio.Blocks).

    Args:
        predictor: scores the recordings.
        title: heading of the page.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    import gradio

    def score_one(path: str | None) -> tuple[str, Any]:
        if path is None:
            return "", None
        (score,) = predictor.score([_upload(path)])
        if score.error:
            raise gradio.Error(_problem(score))
        if score.doubt:
            gradio.Warning(f"This recording is {score.doubt}: the score may mean little.")
        return ", ".join(f"{value:.2f}" for value in score.scores.values()), plot_frames(score)

    def score_several(paths: list[str] | None) -> tuple[list[list[Any]], str | None]:
        rows = [_row(score, len(scales)) for score in predictor.score(map(_upload, paths or []))]
        return rows, _write_csv(columns, rows) if rows else None

    scales = scales_of(predictor.runtime.info, predictor.options)
    names = [scale.name for scale in scales]
    columns = ["file", *names, "seconds", "problem"]
    types: list[Any] = ["str", *["number"] * (len(names) + 1), "str"]
    subject = "mean opinion score (MOS, from 1, bad, to 5, excellent)"
    if scales != (MOS_SCALE,):
        subject = " and ".join(f"{scale.name} (from {scale.span})" for scale in scales)

    with gradio.Blocks(title=title, analytics_enabled=False) as page:
        gradio.Markdown(f"# {title}\nPredicted {subject} of speech.")
        with gradio.Tab("One recording"):
            audio = gradio.Audio(
                sources=["upload", "microphone"], type="filepath", label="Recording", buttons=["download"]
            )
            mos = gradio.Textbox(label=", ".join(names), interactive=False, elem_id="mos")
            figure = gradio.Plot(label="Frame scores and spectrogram", show_label=False)
            audio.change(score_one, audio, [mos, figure], api_name="score")
        with gradio.Tab("Several"):
            files = gradio.File(
                file_count="multiple", file_types=list(audio_suffixes()), label="Recordings", elem_id="files"
            )
            button = gradio.Button("Score", variant="primary")
            table = gradio.Dataframe(
                headers=columns,
                datatype=types,
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
        predictor: scores the recordings.
        title: heading of the page.
        port: TCP port on 127.0.0.1.
        open_browser: whether to open the page in the user's browser.
    """
    page = make_page(predictor, title)
    import gradio

    theme = gradio.themes.Default(font=FONTS, font_mono=MONO_FONTS)
    page.launch(
        server_name="127.0.0.1", server_port=port, share=False, inbrowser=open_browser, theme=theme, footer_links=[]
    )


def _upload(path: str) -> Recording:
    """Return an uploaded file as a recording named without its temporary directory."""
    return Recording(Path(path).name, Path(path))


def _problem(score: Score) -> str:
    """Return the error of an upload without its temporary directory."""
    return score.error.replace(str(score.recording.path), score.utterance) if score.recording else score.error


def _row(score: Score, targets: int) -> list[Any]:
    if score.error:
        return [score.utterance, *[None] * (targets + 1), _problem(score)]
    return [
        score.utterance,
        *(round(value, 4) for value in score.scores.values()),
        round(score.seconds, 2),
        score.doubt,
    ]


def _write_csv(columns: list[str], rows: list[list[Any]]) -> str:
    path = Path(tempfile.mkdtemp(prefix="distilmos_")) / "scores.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
    return str(path)
