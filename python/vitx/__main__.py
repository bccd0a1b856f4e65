"""`python -m vitx` is the program itself."""

import os
import subprocess
import sys

from ._find import program

if __name__ == "__main__":
    command = [program(), *sys.argv[1:]]
    if os.name == "posix":
        os.execv(command[0], command)
    sys.exit(subprocess.run(command).returncode)
