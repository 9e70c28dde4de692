"""Ends a group of processes, and removes their folder, when the one who owns them is gone.

    python keeper.py FOLDER

prints the number of a new process group, for the owner to put processes into, and then reads its
standard input, which only the owner holds the other end of. That input ends when the owner closes
it, and also when the owner dies, be it by SIGKILL: then all of the group is killed and the folder
removed. A program of its own, as the owner cannot be asked to tidy up after its own crash.
"""

import os
import shutil
import signal
import sys
import time


def main(folder: str) -> None:
    os.setpgid(0, 0)  # Ctrl-C in the terminal is for the owner alone
    leader = os.fork()
    if leader == 0:
        while True:  # holds the group's number, so that no other process can ever get it
            signal.pause()
    os.setpgid(leader, leader)
    os.write(1, b"%d\n" % leader)
    sys.stdin.buffer.read()
    os.killpg(leader, signal.SIGKILL)
    for _ in range(100):  # a process that is just dying may still finish writing a file
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.exists(folder):
            break
        time.sleep(0.05)


if __name__ == "__main__":
    main(sys.argv[1])
