#!/usr/bin/env python3
"""Stand-ins for the tools of OpenPBS and Torque, under whose names this file is linked.

What they print is written after public listings and messages of the real tools, with none of which this has been run;
the jobs run on this machine. $PBS_STAND_IN is a directory for them, $PBS_FLAVOUR openpbs or torque.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(os.environ["PBS_STAND_IN"])
TORQUE = os.environ["PBS_FLAVOUR"] == "torque"
HEADING = """Job id            Name             User              Time Use S Queue
----------------  ---------------- ----------------  -------- - -----"""


def qsub(arguments: list[str]) -> int:
    """Start all tasks of a job at once."""
    (ROOT / "qsub.log").open("a").write(json.dumps(arguments) + "\n")
    number = len(list(ROOT.glob("*.json"))) + 1234
    option = "-t" if TORQUE else "-J"
    tasks = [None]
    if option in arguments:
        first, last = re.fullmatch(r"(\d+)-(\d+)(?:%\d+)?", arguments[arguments.index(option) + 1]).groups()
        if not TORQUE and first == last:
            print("qsub: Bad Job Array Range", file=sys.stderr)
            return 1
        tasks = list(range(int(first), int(last) + 1))
    script = Path(arguments[-1]).read_text()
    pids = {}
    for task in tasks:
        variable = {} if task is None else {"PBS_ARRAYID" if TORQUE else "PBS_ARRAY_INDEX": str(task)}
        process = subprocess.Popen(
            ["bash", "-c", script],
            env=os.environ | variable,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        pids[str(task)] = process.pid
    (ROOT / f"{number}.json").write_text(json.dumps({"name": arguments[arguments.index("-N") + 1], "pids": pids}))
    print(f"{number}{'' if tasks == [None] else '[]'}.pbs")
    return 0


def alive(pid: int) -> bool:
    """Return whether a process runs."""
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def qstat(arguments: list[str]) -> int:
    """List jobs as `qstat -t` does, or what is kept of one that has ended."""
    if arguments[:2] == ["-x", "-f"]:
        print(f"Job Id: {arguments[2]}.pbs\n    job_state = F\n    Exit_status = 271\n    comment = Job run at Mon")
        print("\tday and terminated")
        return 0
    status, lines = 0, []
    for job in arguments[1:]:
        number = job.partition("[")[0].partition(".")[0]
        path = ROOT / f"{number}.json"
        if not path.exists():
            print(f"qstat: Unknown Job Id {job}.pbs", file=sys.stderr)
            status = 153
            continue
        stored = json.loads(path.read_text())
        running = {task: alive(pid) for task, pid in stored["pids"].items()}
        if not TORQUE and not any(running.values()):
            message = "Job has finished, use -x or -H to obtain historical job information"
            print(f"qstat: {job}.pbs {message}", file=sys.stderr)
            status = 35
            continue
        if "[" in job and not TORQUE:
            lines.append(f"{f'{number}[].pbs':<17} {stored['name'][:16]:<16} {'user':<17} {'0':>8} B workq           ")
        for task, runs in running.items():
            name = f"{number}.pbs" if task == "None" else f"{number}[{task}].pbs"
            state = "R" if runs else "C" if TORQUE else "X"
            lines.append(f"{name:<17} {stored['name'][:16]:<16} {'user':<17} 00:00:00 {state} workq           ")
    if lines:
        print(HEADING, *lines, sep="\n")
    return status


def qselect(arguments: list[str]) -> int:
    """Print the jobs of a name that have not ended."""
    for path in ROOT.glob("*.json"):
        stored = json.loads(path.read_text())
        if stored["name"] == arguments[1] and any(map(alive, stored["pids"].values())):
            print(f"{path.stem}{'' if 'None' in stored['pids'] else '[]'}.pbs")
    return 0


def qdel(arguments: list[str]) -> int:
    """Kill the tasks of jobs, as at the end of the delay between the two signals."""
    for job in arguments:
        wanted = re.fullmatch(r"(\d+)(?:\[(\d*)\])?.*", job)
        stored = json.loads((ROOT / f"{wanted[1]}.json").read_text())
        for task, pid in stored["pids"].items():
            if alive(pid) and wanted[2] in (None, "", task):
                os.killpg(pid, signal.SIGKILL)
    return 0


if __name__ == "__main__":
    sys.exit({"qsub": qsub, "qstat": qstat, "qselect": qselect, "qdel": qdel}[Path(sys.argv[0]).name](sys.argv[1:]))
