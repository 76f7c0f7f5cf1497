"""Run a command; write the memory of its largest process, in kilobytes, to the file descriptor in the first argument.

This is a small separate process because Linux counts the memory of the parent process for a new command, and a
benchmark that has loaded torch is larger than many commands.
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
