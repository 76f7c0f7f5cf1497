"""A stand-in for TCD-VoIP: its file names, its workbook and its mismatches, with short noise and simulated ratings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openpyxl
import soundfile

WORKBOOK = "TCD VOIP - Test Set Conditions and MOS Results.xlsx"
SHEET = "Subjective Test Scores"
# Conditions of each type, in the order of the workbook.
CONDITIONS = {"ECHO": 24, "CHOP": 24, "CLIP": 14, "COMPSPKR": 14, "NOISE": 24}
TALKERS = ("FA", "FG", "MK", "ML")
LISTENERS = 24
RATE = 16000


def write_tcdvoip(root: Path) -> Path:
    """Write the release below `root` and return `root`.

    As in the release, the last four conditions of a type are reference noise. Those of clip and competing speaker have
    a ConditionID (21 to 24) that is not the number in their names; those of echo have audio but no ratings.
    """
    random = np.random.default_rng(1)
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = SHEET
    sheet.append(["Filename", "ConditionID", "sample MOS", "listener  # ->", *range(1, LISTENERS + 1)])
    for kind, conditions in CONDITIONS.items():
        folder = root / "Test Set" / kind.lower()
        folder.mkdir(parents=True)
        for number in range(1, conditions + 1):
            condition = number + 24 - conditions if number > conditions - 4 else number
            quality = 4.8 - 3.6 * (number - 1) / (conditions - 1)
            for talker in TALKERS:
                name = f"C_{number:02d}_{kind}_{talker}.wav"
                soundfile.write(folder / name, 0.1 * random.standard_normal(RATE // 20), RATE, subtype="PCM_16")
                if kind == "ECHO" and condition > 20:
                    continue
                scores = np.clip(np.rint(quality + 0.6 * random.standard_normal(LISTENERS)), 1, 5).astype(int).tolist()
                if number == 1:  # undegraded
                    scores = [5] * 14 + [4] * 10
                sheet.append([name, condition, sum(scores) / LISTENERS, None, *scores])
    book.save(root / WORKBOOK)
    return root
