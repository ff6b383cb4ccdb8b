"""The tools on a real slurm of two nodes: srun, preemption, requeueing when time is up."""

import re
import subprocess

import pytest

from benchmarks.logs import read_logs

pytestmark = pytest.mark.cluster

CONFIG = 'configs/mask_rcnn_ctx_convnext_shapes.py'
# Two processes with one of eight images each: four iterations an epoch, a checkpoint after each.
ITERATIONS = 4
OPTIONS = (
    'train_dataloader.batch_size=1', 'train_dataloader.num_workers=0',
    'val_dataloader.num_workers=0', 'default_hooks.logger.interval=1',
)  # fmt: skip
ON_TWO_CPU_NODES = ('--nodes=2', '--ntasks-per-node=1', '--gres=none', '--cpus-per-task=1')


def options(epochs):
    return [
        '--cfg-options', f'train_cfg.max_epochs={epochs}', f'train_cfg.val_interval={epochs}',
        *OPTIONS,
    ]  # fmt: skip


def iterations(work_dir):
    """Logged iterations of each run in a work dir, in the order of the runs."""
    return [[line['iter'] for line in lines if 'iter' in line] for lines in read_logs(work_dir)]


def resumed_at(work_dir):
    """Iterations at which runs were resumed, from their logs."""
    logs = ''.join(log.read_text() for log in sorted(work_dir.glob('*/*.log')))
    return [int(number) for number in re.findall(r'resumed epoch: \d+, iter: (\d+)', logs)]


def check_that_nothing_was_lost(work_dir, epochs):
    """Check that each run resumed where the previous one ended, and that the last one finished."""
    runs, resumed = iterations(work_dir), resumed_at(work_dir)
    print('iterations of the runs:', [(run[0], run[-1]) for run in runs if run], resumed)
    assert len(resumed) == len(runs) - 1 > 0
    for run in runs:
        assert run == list(range(run[0], run[-1] + 1))
    for before, after, checkpoint in zip(runs, runs[1:], resumed):
        # Both ways of ending a job leave time to save the current iteration.
        assert before[-1] == checkpoint == after[0] - 1
    assert runs[-1][-1] == epochs * ITERATIONS
    assert (work_dir / f'epoch_{epochs}.pth').is_file()


def test_srun_trains_and_tests_on_two_nodes(slurm, shapes, repo, tmp_path):
    def run(script, *args):
        done = subprocess.run(
            [repo / 'tools' / script, 'low', script, repo / CONFIG, *map(str, args)],
            cwd=tmp_path,
            env={**slurm.env, 'SHAPES_ROOT': str(shapes), 'GPUS': '2', 'GPUS_PER_NODE': '0',
                 'CPUS_PER_TASK': '1', 'SRUN_ARGS': '--nodes=2'},
            capture_output=True,
            text=True,
            timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        record = slurm.call('scontrol', '--oneliner', 'show', 'job')
        assert re.search(rf'JobName={re.escape(script)} .* NodeList=n\[1-2\] ', record)
        log = done.stdout + done.stderr
        assert re.search(r'Distributed training: True\s+GPU number: 2', log)
        return log

    log = run('slurm_train.sh', 'work', *options(epochs=1))
    assert iterations(tmp_path / 'work') == [[1, 2, 3, 4]]
    assert 'coco/segm_mAP' in log
    log = run('slurm_test.sh', 'work/epoch_1.pth', '--work-dir', 'test', *options(epochs=1))
    assert 'coco/segm_mAP' in log


def submit(slurm, shapes, repo, work_dir, epochs, *sbatch_options):
    return slurm.submit(
        '--partition=low', *ON_TWO_CPU_NODES, *sbatch_options, f'--output={work_dir}.out',
        repo / 'tools' / 'slurm_train.sbatch', CONFIG, '--work-dir', work_dir, *options(epochs),
        cwd=repo, SHAPES_ROOT=str(shapes),
    )  # fmt: skip


def wait_for_end(slurm, number, seconds, work_dir):
    """Wait until a job has succeeded, and return how often it was requeued."""
    over = ('COMPLETED', 'FAILED', 'TIMEOUT', 'CANCELLED', 'NODE_FAIL')
    try:
        slurm.wait(lambda: slurm.job(number)['JobState'] in over, seconds, f'job {number} to end')
    finally:
        print(*re.findall(r'.* job \d+.*', work_dir.with_suffix('.out').read_text()), sep='\n')
    job = slurm.job(number)
    assert job['JobState'] == 'COMPLETED', work_dir.with_suffix('.out').read_text()[-3000:]
    return int(job['Restarts'])


def test_preempted_job_resumes_from_its_last_checkpoint(slurm, shapes, repo, tmp_path):
    epochs, work_dir = 40, tmp_path / 'preempted'
    number = submit(slurm, shapes, repo, work_dir, epochs, '--time=1:00:00')
    slurm.wait((work_dir / 'epoch_2.pth').is_file, 300, 'the second checkpoint')
    urgent = slurm.submit(
        '--partition=high', '--nodes=2', '--output=/dev/null', '--wrap=sleep 1', cwd=tmp_path
    )
    slurm.wait(lambda: slurm.job(urgent)['JobState'] == 'COMPLETED', 120, 'the urgent job')
    assert slurm.job(number)['Restarts'] == '1'
    assert not (work_dir / f'epoch_{epochs}.pth').exists()
    assert wait_for_end(slurm, number, 400, work_dir) == 1
    check_that_nothing_was_lost(work_dir, epochs)


def test_job_is_requeued_when_its_time_is_up(slurm, shapes, repo, tmp_path):
    epochs, work_dir = 100, tmp_path / 'timed'
    number = submit(
        slurm, shapes, repo, work_dir, epochs, '--time=1:00:00', '--signal=B:USR1@30',
        '--export=ALL,SECONDS_TO_SAVE=20',
    )  # fmt: skip
    slurm.wait((work_dir / 'epoch_2.pth').is_file, 300, 'the second checkpoint')
    # Slurm looks every half a minute which jobs are to get their signal by its next look.
    slurm.call('scontrol', 'update', f'JobId={number}', 'EndTime=now+75')
    slurm.wait(lambda: slurm.job(number)['Restarts'] == '1', 120, 'the job to be requeued')
    slurm.call('scontrol', 'update', f'JobId={number}', 'TimeLimit=60')
    assert not (work_dir / f'epoch_{epochs}.pth').exists()
    assert wait_for_end(slurm, number, 900, work_dir) == 1
    assert 'time is nearly up' in work_dir.with_suffix('.out').read_text()
    check_that_nothing_was_lost(work_dir, epochs)
