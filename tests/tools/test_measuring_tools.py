"""The tools that measure: their code is in `benchmarks/`, which is not in the wheel."""

import shutil

import pytest

TOOLS = (
    'check_gpu.py',
    'study.py',
    'reproduce_table.py',
    'analysis/benchmark.py',
    'analysis/benchmark_op.py',
    'analysis/soak.py',
)


@pytest.fixture
def run(run_command):
    """Run a tool with nothing but the installed mmctx to import from."""
    return lambda tool, *arguments, cwd: run_command(tool, *arguments, cwd=cwd, PYTHONPATH='')


@pytest.mark.parametrize('tool', TOOLS)
def test_tool_finds_its_code_from_any_folder(tool, repo, tmp_path, run):
    result = run(repo / 'tools' / tool, '--help', cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f'usage: {tool.rpartition("/")[2]} ')


@pytest.mark.parametrize('tool', TOOLS)
def test_tool_of_a_wheel_says_that_it_needs_a_clone(tool, repo, tmp_path, run):
    installed = tmp_path / 'mmctx' / '.mim' / 'tools'
    shutil.copytree(repo / 'tools', installed)
    result = run(installed / tool, '--help', cwd=tmp_path)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith('error: ') and 'run it from a clone of the repository' in line
