"""A real slurm of two nodes on this one machine, for tests: needs root and Debian's packages.

Everything it writes is in one temporary folder, all its ports are on loopback, and its daemons are
stopped by their process ids.
"""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

PROGRAMS = ('munged', 'slurmctld', 'slurmd', 'sbatch', 'srun', 'scontrol')
INSTALL = ('apt-get', 'install', '-y', '--no-install-recommends', 'slurm-wlm', 'munge')
NODES = ('n1', 'n2')
SECONDS_TO_START = 60

# A requeued job waits for as long as credentials live. Two daemons on one host need ports of their
# own, and a user's processes are followed without cgroups.
CONFIG = """
ClusterName=mmctx
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=10
SlurmUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/linear
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait={seconds_to_die}
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2
PartitionName=low Nodes=n1,n2 Default=YES PriorityTier=1
PartitionName=high Nodes=n1,n2 PriorityTier=10 PreemptMode=OFF
"""


class NoSlurm(Exception):
    """What this machine lacks to run a slurm, and what to do about it."""


def install():
    """Install slurm unless it is there.

    Raises:
        NoSlurm: If that is not possible here.
    """
    if os.geteuid() != 0:
        raise NoSlurm('the daemons of slurm need root: run this as root, e.g. in a container')
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if not missing:
        return
    what = f'{", ".join(missing)} missing'
    if shutil.which(INSTALL[0]) is None:
        raise NoSlurm(f'{what}, and no apt-get here: install slurm and munge, then run this again')
    print(f'{what}; $ {" ".join(INSTALL)}', flush=True)
    env = {**os.environ, 'DEBIAN_FRONTEND': 'noninteractive'}
    for command in (('apt-get', 'update'), INSTALL):
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        if done.returncode != 0:
            raise NoSlurm(f'{" ".join(command)} failed: {done.stderr.strip()[-500:]}')
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        raise NoSlurm(f'after installing, {", ".join(missing)} missing')


def free_ports(count):
    """Ports of loopback that nothing listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(('127.0.0.1', 0))
        return [one.getsockname()[1] for one in sockets]


class LocalSlurm:
    """The daemons, running within a `with`; partitions `low` and `high`, which preempts it.

    Args:
        seconds_to_die (int): From SIGTERM to SIGKILL for a job that slurm ends. Defaults to 60.

    Attributes:
        env (dict[str, str]): The environment for slurm's commands and the jobs.
    """

    def __init__(self, seconds_to_die=60):
        self.folder = Path(tempfile.mkdtemp(prefix='slurm-'))
        self.daemons = []
        self.seconds_to_die = seconds_to_die
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(('SLURM', 'MASTER_'))}
        # The nodes' names mean nothing to the resolver of this machine.
        self.env = {
            **inherited,
            'SLURM_CONF': str(self.folder / 'slurm.conf'),
            'MASTER_ADDR': '127.0.0.1',
        }

    def __enter__(self):
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.daemons:
            subprocess.run(['scancel', '--full', '--user=root'], env=self.env, capture_output=True)
            with contextlib.suppress(TimeoutError):
                self.wait(lambda: not self.call('squeue', '--noheader'), 20, 'the queue to empty')
        for daemon in reversed(self.daemons):
            daemon.terminate()
        for daemon in self.daemons:
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def call(self, *command):
        """What one of slurm's commands prints."""
        done = subprocess.run(command, env=self.env, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f'{" ".join(command)}: {done.stderr.strip()}\n{self.logs()}')
        return done.stdout.strip()

    def submit(self, *args, cwd, **env):
        """Hand a batch job in; returns its number."""
        done = subprocess.run(
            ['sbatch', '--parsable', *map(str, args)],
            cwd=cwd,
            env={**self.env, **env},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def job(self, number):
        """Slurm's record of a job by its keys, such as JobState, Restarts and NodeList."""
        record = self.call('scontrol', '--oneliner', 'show', 'job', number)
        return dict(item.split('=', 1) for item in record.split() if '=' in item)

    def wait(self, condition, seconds, what):
        """Wait until a condition holds; a TimeoutError with the daemons' logs if it does not."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f'waited {seconds} s for {what}\n{self.logs()}')
            time.sleep(0.5)

    def logs(self):
        """The ends of the daemons' logs."""
        files = sorted(self.folder.glob('*.log'))
        return '\n'.join(f'== {file.name}\n{file.read_text()[-2000:]}' for file in files)

    def _start(self):
        for name in ('state', *(f'spool-{node}' for node in NODES)):
            (self.folder / name).mkdir()
        key = self.folder / 'munge.key'
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(1024))
        (self.folder / 'slurm.conf').write_text(
            CONFIG.format(
                folder=self.folder,
                host=socket.gethostname().partition('.')[0],
                ports=free_ports(3),
                seconds_to_die=self.seconds_to_die,
            )
        )
        files = {'key-file': 'key', 'socket': 'socket', 'pid-file': 'pid', 'log-file': 'log',
                 'seed-file': 'seed'}  # fmt: skip
        files = [f'--{option}={self.folder}/munge.{end}' for option, end in files.items()]
        self._daemon('munged', '--foreground', '--force', *files)
        socket_file = self.folder / 'munge.socket'
        self.wait(socket_file.exists, SECONDS_TO_START, 'munged')
        self._daemon('slurmctld', '-D', '-i')
        for node in NODES:
            self._daemon('slurmd', '-D', '-N', node)
        self.wait(self._nodes_are_idle, SECONDS_TO_START, 'idle nodes')

    def _daemon(self, *command):
        with (self.folder / f'{len(self.daemons)}-{command[0]}.out').open('w') as out:
            self.daemons.append(
                subprocess.Popen(command, env=self.env, stdout=out, stderr=subprocess.STDOUT)
            )

    def _nodes_are_idle(self):
        for daemon in self.daemons:
            if daemon.poll() is not None:
                raise RuntimeError(f'{daemon.args[0]} ended early\n{self.logs()}')
        done = subprocess.run(
            ['sinfo', '--noheader', '--Node', '--partition=low', '--format=%t'],
            env=self.env,
            capture_output=True,
            text=True,
        )
        return done.stdout.split() == ['idle'] * len(NODES)
