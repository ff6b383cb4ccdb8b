"""Commands in processes that are forked from one that has imported the frameworks.

Importing them takes a command five seconds, which the tests wait for a hundred times. What depends
on the order of imports is for tests that start an interpreter.
"""

import atexit
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import time
from multiprocessing import forkserver
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Interpreters and processes that tests start shall not fight for the cores.
ENVIRONMENT = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)}


class Command:
    """A running command, with the part of `subprocess.Popen` that tests need.

    Args:
        arguments (list): A Python file, or `-c` and code, or `-m` and a module; then its arguments.
        cwd (Path): Folder that it runs in.
        env (dict[str, str]): All of its environment.
        folder (Path): Where its output is kept.
    """

    def __init__(self, arguments, cwd, env, folder):
        start_server()
        self.arguments = [*map(str, arguments)]
        self.outputs = [folder / 'stdout', folder / 'stderr']
        for path in self.outputs:
            path.touch()
        self.process = multiprocessing.get_context('forkserver').Process(
            target=execute, args=(self.arguments, str(cwd), env, [*map(str, self.outputs)])
        )
        self.process.start()
        self.pid = self.process.pid

    @property
    def printed(self):
        """What it has printed so far, on stdout and on stderr."""
        return [path.read_text() for path in self.outputs]

    def wait(self, seconds=None):
        """Wait for its end; its exit status, None if it still runs after these seconds."""
        self.process.join(seconds)
        return self.process.exitcode

    def wait_for(self, text, seconds=60):
        """Wait until it has printed a text on stdout, or has ended."""
        end = time.monotonic() + seconds
        while text not in self.printed[0] and self.process.is_alive():
            assert time.monotonic() < end, self.printed
            time.sleep(0.02)

    def completed(self, seconds):
        """Wait for its end, as `subprocess.run` does."""
        status = self.wait(seconds)
        if status is None:
            self.process.kill()
            raise subprocess.TimeoutExpired(self.arguments, seconds, *self.printed)
        return subprocess.CompletedProcess(self.arguments, status, *self.printed)


def start_server():
    """Start the process that commands are forked from, unless it runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('OMP_NUM_THREADS', '1')
        patch.setenv('PYTHONPATH', os.pathsep.join([str(ROOT), str(ROOT / 'tests')]))
        multiprocessing.get_context('forkserver').set_forkserver_preload(['preloaded'])
        forkserver.ensure_running()


def execute(arguments, cwd, env, outputs):
    """Be a new interpreter that runs a file, a module or code, as far as a process can."""
    for number, path in enumerate(outputs, start=1):
        file = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    # An import that fails beforehand would only be slow.
    from preloaded import SYSTEM_PATH

    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    # Ignored by all that a shell runs in the background.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    added = env.get('PYTHONPATH')
    sys.path[:] = [*(added.split(os.pathsep) if added else []), *SYSTEM_PATH]
    first, *rest = arguments
    try:
        if first == '-m':
            sys.argv = rest
            runpy.run_module(rest[0], run_name='__main__', alter_sys=True)
        elif first == '-c':
            sys.argv = ['-c', *rest[1:]]
            exec(rest[0], {'__name__': '__main__'})
        else:
            sys.argv = arguments
            sys.path.insert(0, os.path.dirname(first))
            runpy.run_path(first, run_name='__main__')
    finally:
        # Forked processes leave them out.
        atexit._run_exitfuncs()
