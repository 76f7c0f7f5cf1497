"""Run a command and write the memory of its largest process, in kilobytes, to the descriptor of the first argument.

A process of its own, and a small one: what Linux counts for a command begins with the memory of the process that
started it, and a benchmark that has loaded torch is larger than many a command.
"""

from __future__ import annotations

import os
import sys

descriptor, *command = sys.argv[1:]
os.set_inheritable(int(descriptor), False)
process = os.spawnvp(os.P_NOWAIT, command[0], command)
_, status, usage = os.wait4(process, 0)
os.write(int(descriptor), str(usage.ru_maxrss).encode())
sys.exit(os.waitstatus_to_exitcode(status))
