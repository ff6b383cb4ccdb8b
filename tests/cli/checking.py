"""All checks of a config's files, as a run does them before and after it builds its modules."""

from mmctx.cli.preflight import check_contents
from mmctx.cli.preflight import preflight as find_files


def preflight(cfg, mode):
    checked = find_files(cfg, mode)
    check_contents(checked)
    return checked
